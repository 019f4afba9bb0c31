"""One cache, computed three ways: by minisink, by transformers, and by the algorithm of StreamingLLM's authors.

    python benchmarks/parity.py

This needs the extra `parity`. All three read the same tokens with the model that ships, and each query sees the same
keys. The second is transformers' own forward pass and cache, from which one key is removed before each token. The third
is the authors' published algorithm on top of transformers' layers, not their code, which needs transformers 4.33.
"""

import tempfile
import warnings

import numpy as np
import torch
import transformers

import minisink
from minisink.hf.shipped import sample_text

N_TOKENS, START, RECENT = 1000, 4, 60


def rotate(x, angles):
    """Rotate the channel pairs (j, j + D/2) of (heads, S, D) by the cosines and sines from transformers' own module."""
    cos, sin = angles
    left, right = x.chunk(2, dim=-1)
    return x * cos[0] + torch.cat((-right, left), dim=-1) * sin[0]


@torch.no_grad()
def authors_nll(model, ids, start, recent, positions="slot"):
    """Return the losses as the authors measure them: one token per step, keys un-rotated, trimmed *after* the forward.

    A query therefore sees the `start + recent` tokens that were left, and itself. With positions="slot" the keys are
    rotated by their place in the cache at every step (the authors' "pos shift"); with "original", by their place in the
    text.
    """
    config, body = model.config, model.model
    H, K = config.num_attention_heads, config.num_key_value_heads
    D = body.layers[0].self_attn.head_dim
    caches = [(torch.empty(K, 0, D), torch.empty(K, 0, D)) for _ in body.layers]
    index = torch.empty(0, dtype=torch.long)  # place in the text of each cached token
    losses = []
    for t, token in enumerate(ids[:-1]):
        index = torch.cat((index, torch.tensor([t])))
        place = torch.arange(len(index)) if positions == "slot" else index
        x = body.embed_tokens(torch.tensor([token]))  # (1, C)
        angles = body.rotary_emb(x, place[None])
        last = tuple(a[:, -1:] for a in angles)
        for i, layer in enumerate(body.layers):
            h = layer.input_layernorm(x)
            q = layer.self_attn.q_proj(h).view(H, 1, D)
            keys = torch.cat((caches[i][0], layer.self_attn.k_proj(h).view(K, 1, D)), dim=1)
            values = torch.cat((caches[i][1], layer.self_attn.v_proj(h).view(K, 1, D)), dim=1)
            caches[i] = keys, values
            rotated = rotate(keys, angles).repeat_interleave(H // K, dim=0)  # (H, S, D)
            pattern = (rotate(q, last) @ rotated.mT / D**0.5).softmax(dim=-1)
            mixed = pattern @ values.repeat_interleave(H // K, dim=0)  # (H, 1, D)
            x = x + layer.self_attn.o_proj(mixed.reshape(1, H * D))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        losses.append(nll_of(model.lm_head(body.norm(x))[0], ids[t + 1]))
        if len(index) > start + recent:
            stay = torch.cat((torch.arange(start), torch.arange(len(index) - recent, len(index))))
            index = index[stay]
            caches = [(keys[:, stay], values[:, stay]) for keys, values in caches]
    return np.array(losses)


@torch.no_grad()
def transformers_nll(model, ids, n_sinks, window):
    """Return the losses of transformers' own forward pass, with its cache holding the same keys at the same slots.

    Before each token, a full cache drops the oldest key in the window. The keys that move down one slot are then
    rotated back by one position, because transformers keeps them rotated.
    """
    capacity, past, losses = n_sinks + window, transformers.DynamicCache(config=model.config), []
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.tensor([[1]]))  # for one position
    for t, token in enumerate(ids[:-1]):
        if t >= capacity:
            for layer in past.layers:
                sinks, moved = layer.keys[:, :, :n_sinks], layer.keys[:, :, n_sinks + 1 :]
                layer.keys = torch.cat((sinks, rotate(moved, (cos, -sin))), dim=2)
                layer.values = torch.cat((layer.values[:, :, :n_sinks], layer.values[:, :, n_sinks + 1 :]), dim=2)
        slot = torch.tensor([[min(t, capacity - 1)]])
        logits = model(torch.tensor([[token]]), past_key_values=past, position_ids=slot).logits[0]
        losses.append(nll_of(logits, ids[t + 1]))
    return np.array(losses)


def nll_of(logits, target):  # (1, V)
    """Return the loss of the next token, in nats."""
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor([target])))


def main():
    """Print the mean loss of each, and how far the losses of single tokens are from minisink's."""
    model = minisink.load("novels")
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = model.encode(sample_text().read_text("utf-8"))[:N_TOKENS]
    ours = minisink.token_nll(model, ids, minisink.Streaming(START, RECENT + 1))  # the current token counts
    print(f"{model.name}, {len(ids):,} tokens, {START} sinks and a window of {RECENT + 1}: nats per token")
    print(f"minisink                 {ours.mean(dtype=np.float64):.6f}")
    with_transformers = transformers_nll(theirs, ids, START, RECENT + 1)
    by_the_authors = authors_nll(theirs, ids, START, RECENT)
    for name, nll in (
        (f"transformers {transformers.__version__}", with_transformers),
        ("the authors' algorithm", by_the_authors),
    ):
        off = abs(nll - ours).max()
        print(f"{name:24} {nll.mean():.6f}   no token is off by more than {off:.0e}")


if __name__ == "__main__":
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # transformers renames `past_key_values`
    main()
