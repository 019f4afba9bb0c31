"""Keys of a ``config.json`` that would change the logits but that no architecture here supports: refused, or warned of.

transformers passes every key of the file to its classes. A few change what any of them computes; those that only a
relative (Granite, Cohere, Gemma, ...) uses change nothing, but the file may be labelled wrongly.
"""

import re
import warnings

from .fields import brief

# Keys of other architectures: factors, which change nothing if they are 1, and switches, which change nothing if off
FACTORS = "embedding_multiplier residual_multiplier logits_scaling logit_scale scale_emb rotary_pct rope_ratio".split()
OTHERS = """attention_multiplier scale_depth attn_logit_softcapping final_logit_softcapping query_pre_attn_scalar
    clip_qkv qk_norm use_qk_norm qk_layernorm alibi use_parallel_residual use_bidirectional_attention""".split()
ROPE = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor")
# Keys that some architectures here read; the others read `ROPE`
READ = {"gpt2": (), "mpt": (), "falcon": (*ROPE, "alibi")}
READ["gpt_neox"] = ("rope_scaling", "rope_parameters", "rotary_pct", "rotary_emb_base", "use_parallel_residual")
FULL = ("full_attention", "attention")  # two names for one type of layer


def check_relatives(raw, config):
    """Refuse keys that change the logits of every architecture in transformers; warn of those it does not use."""
    for key, harmless in (("is_causal", True), ("per_layer_config", False)):
        if bool(raw.get(key, harmless)) != harmless:
            raise ValueError(f"{key} is {brief(raw[key])}, which is not supported")
    kinds = raw.get("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or len(kinds) != config.n_layers):
        raise ValueError(f"layer_types is {brief(kinds)}; it must be a list of {config.n_layers}, one for each layer")
    slides = config.model_type in ("qwen2", "qwen3") and raw.get("use_sliding_window")  # beyond every text: see `llama`
    for kind in kinds or ():
        if kind not in FULL and not (slides and kind == "sliding_attention"):
            raise ValueError(f"layer_types has {brief(kind)}, which is not supported; supported: {', '.join(FULL)}")
    for key in ("sliding_window", "attention_chunk_size"):
        if config.model_type not in ("mistral", "qwen2", "qwen3") and raw.get(key) is not None:
            seen = "every token is still seen, as in transformers without a cache"
            warnings.warn(f"{key} is {brief(raw[key])}: {seen}; its cache drops keys", stacklevel=2)
    ours = READ.get(config.model_type, ROPE)
    for key, value in raw.items():
        neutral = value is None or value is False or (key in FACTORS and value == 1.0)
        known = key in FACTORS or key in OTHERS or re.search("rope|rotary", key)
        if known and not neutral and key not in ours:
            warnings.warn(f"{key} is {brief(value)}: it is not used, as in transformers", stacklevel=2)
