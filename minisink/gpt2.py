"""GPT-2, top to bottom: config, weights, forward.

LayerNorm before each half-layer, a GELU MLP, and *learned absolute positions*: a vector for each place, added
to the token before the first layer (Radford et al., 2019). So a position is mixed into everything a cache
keeps, and cannot be given anew when the token moves to another slot:

- ``method="recompute"`` is exact, it builds every window from its tokens;
- a window or streaming cache with ``positions="slot"`` embeds a new token at ``min(t, capacity - 1)``: once the
  cache is full every token enters at the same place, and keys remember the place they came in at;
- with ``positions="original"`` a text longer than ``n_positions`` is refused.

What that costs, on the ``novels-gpt2`` that ships and 3,000 tokens of the sample text, with a cache of 64: perplexity
19.6 re-computed, 75.6 with a window, 75.4 with a sink and a window (``minisink demo --model novels-gpt2 --cache 64
--n-sinks 1``; more in `docs/gpt2.md`).

Letters: T tokens, C model width, H heads, D head width, F MLP width, V vocabulary, P positions.
"""

from dataclasses import dataclass, fields

import numpy as np

from .attention import Dense, normaliser
from .fields import divides, flag, number, one_of, one_or_many, refuse, section, token_id, token_ids, whole
from .ops import gelu, layer_norm, linear
from .positions import unrotated


@dataclass(frozen=True)
class Config:
    """The fixed numbers of one model.

    Attributes
    ----------
    d_model, n_layers, n_heads, d_ff, vocab_size : int
        C, L, H, F and V.
    max_positions : int
        P, the number of learned positions: no text position can lie beyond.
    norm_eps : float
    tied : bool
        Whether the output matrix is the embedding.
    bos : int or None
        Token id that begins a text.
    eos : tuple of int
        Token ids that end one; Llama 3 has several.
    softmax : {"softmax", "softmax1"}
    sink_logit : bool
        Whether every head has a learned sink logit.
    """

    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    vocab_size: int
    max_positions: int
    norm_eps: float = 1e-5
    tied: bool = True
    bos: int | None = None
    eos: tuple[int, ...] = ()
    softmax: str = "softmax"
    sink_logit: bool = False

    model_type = "gpt2"

    @property
    def head_dim(self):
        """D."""
        return self.d_model // self.n_heads

    @property
    def n_kv_heads(self):
        """K: every head has keys and values of its own."""
        return self.n_heads

    @classmethod
    def from_hf(cls, raw):
        """Translate a parsed ``config.json``.

        Parameters
        ----------
        raw : dict

        Returns
        -------
        Config

        Raises
        ------
        ValueError
            Naming the key that is missing, impossible or not supported.
        """
        one_of(raw, "model_type", ("gpt2",))
        one_of(raw, "activation_function", ("gelu_new", "gelu_pytorch_tanh"), "gelu_new")
        refuse(
            raw,
            scale_attn_weights=True,
            scale_attn_by_inverse_layer_idx=False,
            add_cross_attention=False,
            quantization_config=None,
        )
        C, H, V = whole(raw, "n_embd"), whole(raw, "n_head"), whole(raw, "vocab_size")
        divides(H, C, ("n_head", "n_embd"))
        ours = section(raw, "minisink")
        return cls(
            d_model=C,
            n_layers=whole(raw, "n_layer"),
            n_heads=H,
            d_ff=whole(raw, "n_inner", 4 * C),
            vocab_size=V,
            max_positions=whole(raw, "n_positions", whole(raw, "n_ctx", 1024)),
            norm_eps=number(raw, "layer_norm_epsilon", 1e-5),
            tied=flag(raw, "tie_word_embeddings", True),
            bos=token_id(raw, "bos_token_id", V),
            eos=token_ids(raw, "eos_token_id", V),
            softmax=one_of(ours, "softmax", ("softmax", "softmax1"), "softmax"),
            sink_logit=flag(ours, "sink_logit", False),
        )

    def to_hf(self):
        """The ``config.json`` of this model, as `from_hf` and transformers read it.

        Returns
        -------
        dict
        """
        raw = {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_embd": self.d_model,
            "n_layer": self.n_layers,
            "n_head": self.n_heads,
            "n_inner": self.d_ff,
            "vocab_size": self.vocab_size,
            "n_positions": self.max_positions,
            "layer_norm_epsilon": self.norm_eps,
            "activation_function": "gelu_new",
            "tie_word_embeddings": self.tied,
            "bos_token_id": self.bos,
            "eos_token_id": one_or_many(self.eos),
        }
        if self.softmax != "softmax" or self.sink_logit:
            raw["minisink"] = {"softmax": self.softmax, "sink_logit": self.sink_logit}
        return raw


@dataclass
class LayerWeights:
    """The learned arrays of one layer."""

    ln1: np.ndarray  # (C,)
    ln1_b: np.ndarray  # (C,)
    w_qkv: np.ndarray  # (C, 3 * C): queries, keys and values side by side
    b_qkv: np.ndarray  # (3 * C,)
    wo: np.ndarray  # (C, C)
    bo: np.ndarray  # (C,)
    ln2: np.ndarray  # (C,)
    ln2_b: np.ndarray  # (C,)
    w_up: np.ndarray  # (C, F)
    b_up: np.ndarray  # (F,)
    w_down: np.ndarray  # (F, C)
    b_down: np.ndarray  # (C,)
    sink_logits: np.ndarray | None = None  # (H,)


@dataclass
class Weights:
    """The learned arrays of the model."""

    embed: np.ndarray  # (V, C)
    position: np.ndarray  # (P, C)
    layers: list[LayerWeights]
    norm: np.ndarray  # (C,)
    norm_b: np.ndarray  # (C,)
    head: np.ndarray  # (C, V)


# Our name -> Hugging Face's, within "transformer.h.{i}."; its matrices are (in, out) already (Conv1D)
NAMES = {
    "ln1": "ln_1.weight",
    "ln1_b": "ln_1.bias",
    "w_qkv": "attn.c_attn.weight",
    "b_qkv": "attn.c_attn.bias",
    "wo": "attn.c_proj.weight",
    "bo": "attn.c_proj.bias",
    "ln2": "ln_2.weight",
    "ln2_b": "ln_2.bias",
    "w_up": "mlp.c_fc.weight",
    "b_up": "mlp.c_fc.bias",
    "w_down": "mlp.c_proj.weight",
    "b_down": "mlp.c_proj.bias",
    "sink_logits": "attn.sinks",
}
# The causal mask that older files carry as a buffer.
HARMLESS = (r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",)
PREFIX = "transformer."  # some files leave it out


def layer_shapes(config):
    """Shape of every array in `LayerWeights` that this model has, by our name."""
    C, F = config.d_model, config.d_ff
    shapes = {"ln1": (C,), "ln1_b": (C,), "w_qkv": (C, 3 * C), "b_qkv": (3 * C,), "wo": (C, C), "bo": (C,)}
    shapes |= {"ln2": (C,), "ln2_b": (C,), "w_up": (C, F), "b_up": (F,), "w_down": (F, C), "b_down": (C,)}
    if config.sink_logit:
        shapes["sink_logits"] = (config.n_heads,)
    return shapes


def tensor_shapes(config):
    """Every tensor a checkpoint of this config must hold.

    Parameters
    ----------
    config : Config

    Returns
    -------
    dict of str to tuple
        Hugging Face's name to Hugging Face's shape.
    """
    V, C, P = config.vocab_size, config.d_model, config.max_positions
    shapes = {"transformer.wte.weight": (V, C), "transformer.wpe.weight": (P, C)}
    for i in range(config.n_layers):
        for name, shape in layer_shapes(config).items():
            shapes[f"transformer.h.{i}.{NAMES[name]}"] = shape
    shapes |= {"transformer.ln_f.weight": (C,), "transformer.ln_f.bias": (C,)}
    if not config.tied:
        shapes["lm_head.weight"] = (V, C)
    return shapes


def from_tensors(config, tensors):
    """Arrange checkpoint tensors as `Weights`.

    Parameters
    ----------
    config : Config
    tensors : dict of str to ndarray
        As `tensor_shapes` lists them.

    Returns
    -------
    Weights
    """
    layers = [
        LayerWeights(**{name: tensors[f"transformer.h.{i}.{NAMES[name]}"] for name in layer_shapes(config)})
        for i in range(config.n_layers)
    ]
    embed, position = tensors["transformer.wte.weight"], tensors["transformer.wpe.weight"]
    head = embed if config.tied else tensors["lm_head.weight"]
    norm, norm_b = tensors["transformer.ln_f.weight"], tensors["transformer.ln_f.bias"]
    return Weights(embed, position, layers, norm, norm_b, head.T)


def to_tensors(config, weights):
    """The inverse of `from_tensors`.

    Parameters
    ----------
    config : Config
    weights : Weights

    Returns
    -------
    dict of str to ndarray
    """
    tensors = {"transformer.wte.weight": weights.embed, "transformer.wpe.weight": weights.position}
    for i, layer in enumerate(weights.layers):
        for field in fields(layer):
            array = getattr(layer, field.name)
            if array is not None:
                tensors[f"transformer.h.{i}.{NAMES[field.name]}"] = array
    tensors |= {"transformer.ln_f.weight": weights.norm, "transformer.ln_f.bias": weights.norm_b}
    if not config.tied:
        tensors["lm_head.weight"] = weights.head.T
    return tensors


def turn(config):
    """How this architecture gives a query or key its position: not here, but in the embedding."""
    return unrotated


def forward(ids, weights, config, *, path=None, rows=None, trace=None):
    """Logits of the next token after each token.

    Parameters
    ----------
    ids : ndarray of shape (T,), ints
    weights : Weights
    config : Config
    path : Dense, Cached or another with ``positions`` and ``mix``, optional
        Which keys the tokens meet, and where each token stands; `attention.Dense` by default.
    rows : slice or ndarray of ints, optional
        Tokens whose logits are wanted; the others are only worked out as far as attention needs them.
    trace : dict, optional
        Receives the same arrays as `llama.forward` gives.

    Returns
    -------
    ndarray of shape (T, V), or (len(rows), V)

    Raises
    ------
    ValueError
        When a position lies beyond the learned ones.
    """
    path, look_inside = path or Dense(), trace is not None
    H, D = config.n_heads, config.head_dim
    T = len(ids)
    positions = path.positions(T)
    if positions[-1] >= config.max_positions:
        beyond = max(positions[0], config.max_positions)
        raise ValueError(
            f"position {beyond} lies beyond the {config.max_positions} learned positions of this GPT-2; "
            "use method='recompute', or positions='slot' with a capacity that fits"
        )
    inside = [{} if look_inside else None for _ in weights.layers]
    ids, positions = np.asarray(ids, like=weights.embed), np.asarray(positions, like=weights.embed)
    x = weights.embed[ids] + weights.position[positions]  # (T,) -> (T, C)
    for i, layer in enumerate(weights.layers):
        h = layer_norm(x, layer.ln1, layer.ln1_b, config.norm_eps)
        qkv = linear(h, layer.w_qkv, layer.b_qkv).reshape(T, 3, H, D)  # (T, C) -> (T, 3, H, D)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        normalise = normaliser(config.softmax, layer.sink_logits)
        mixed = path.mix(i, q, k, v, unrotated, normalise=normalise, trace=inside[i])  # (T, H, D)
        if look_inside:
            inside[i].update(x=x, q=q, k=k, v=v, mixed=mixed)
        if rows is not None and i == config.n_layers - 1:
            x, mixed = x[rows], mixed[rows]  # nobody looks at the other rows from here on
        x = x + linear(mixed.reshape(len(x), H * D), layer.wo, layer.bo)
        h = layer_norm(x, layer.ln2, layer.ln2_b, config.norm_eps)
        x = x + linear(gelu(linear(h, layer.w_up, layer.b_up)), layer.w_down, layer.b_down)  # (T, F) inside
    if look_inside:
        trace.update(layers=inside, x=x)
    return linear(layer_norm(x, weights.norm, weights.norm_b, config.norm_eps), weights.head)  # -> (T, V)
