"""Falcon's ``config.json``, translated once: to our `Config` when a folder is read, back when it is written.

There are three forms. Falcon-7B, first called RefinedWebModel, has one key for all heads and one norm. Falcon-40B
(first called RefinedWeb, now `new_decoder_architecture`) has several keys and two norms. With `multi_query` false, each
head has its own key.
"""

from ..families import falcon
from .fields import SIZES, brief, common, divides, flag, gelu, positive_int, refuse, renamed
from .rope import read_rope

# Earlier names of some keys
ALIASES = {"n_embed": "hidden_size", "n_layer": "num_hidden_layers"}
ALIASES |= {"n_head": "num_attention_heads", "n_head_kv": "num_kv_heads"}
# transformers' defaults for absent keys; a null key means false
ABSENT = {"max_position_embeddings": 2048, "multi_query": True, "parallel_attn": True}
# Our names -> Hugging Face's
KEYS = SIZES | {"d_ff": "ffn_hidden_size", "norm_eps": "layer_norm_epsilon", "rope_theta": "rope_theta"}
KEYS |= {"n_kv_heads": "num_kv_heads", "parallel": "parallel_attn", "bias": "bias", "activation": "activation"}


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported."""
    model_type, named = raw["model_type"], renamed(raw, ALIASES)
    raw = raw if model_type == "falcon" else named  # under the new name, BLOOM's keys do not apply
    raw = ABSENT | {"new_decoder_architecture": model_type == "RefinedWeb"} | raw
    refuse(raw, apply_residual_connection_post_layernorm=False)
    if flag(raw, "alibi", False):
        raise ValueError("alibi is True, which is not supported: Falcon rounds its slopes to bfloat16")
    sizes = common(raw, KEYS, tied=True, mlp_widths=4)
    C, H = sizes["d_model"], sizes["n_heads"]
    if C // H % 2:
        raise ValueError(f"a head has {C // H} channels, hidden_size {C} / num_attention_heads {H}: it must be even")
    parallel = flag(raw, "parallel_attn", False)
    rope, _ = read_rope(raw)
    form: dict = {"n_kv_heads": _n_kv_heads(raw, H), "parallel": parallel, "n_norms": _n_norms(raw, parallel)}
    return falcon.Config(**sizes, **rope, **form, bias=flag(raw, "bias", False), activation=gelu(raw, "activation"))


def _n_kv_heads(raw, n_heads):
    """Read how many keys there are: one form gives the number; the others have one, or one per head."""
    K = positive_int(raw, "num_kv_heads", n_heads)
    if flag(raw, "new_decoder_architecture", False):
        divides(K, n_heads, ("num_kv_heads", "num_attention_heads"))
        return K
    if flag(raw, "multi_query", False):
        return 1
    refuse({"num_kv_heads": K}, num_kv_heads=n_heads)
    return n_heads


def _n_norms(raw, parallel):
    """Read how many norms a layer has if its halves run side by side."""
    new, norms = flag(raw, "new_decoder_architecture", False), raw.get("num_ln_in_parallel_attn")
    if new and not parallel:
        raise ValueError("parallel_attn is False, which is not supported with new_decoder_architecture True")
    known = (None, 1, 2) if new else (None, 1)
    if parallel and (norms not in known or norms is True):
        form = f"with new_decoder_architecture {new}; supported: {', '.join(map(str, known[1:]))}"
        raise ValueError(f"num_ln_in_parallel_attn is {brief(norms)}, which is not supported {form}")
    return norms or 2 if new else 1


def write_config(config):
    """Return the keys besides `KEYS`; raise ValueError for a number of key heads that no form allows."""
    H, K, parallel = config.n_heads, config.n_kv_heads, config.parallel
    new = parallel and (config.n_norms == 2 or K not in (1, H))
    if not new and K not in (1, H):
        raise ValueError(f"n_kv_heads is {K} and parallel False, which Falcon's config.json cannot express")
    norms = config.n_norms if parallel else None
    return {"new_decoder_architecture": new, "multi_query": K == 1, "num_ln_in_parallel_attn": norms, "alibi": False}
