"""Llama's ``config.json`` and tensor names, translated once: to ours when a folder is read, back when it is written."""

import warnings

from .. import llama
from .fields import brief, divides, ends_and_softmax, flag, number, one_of, positive_int, refuse, section

# Whether q, k and v carry a bias when the config does not say
QKV_BIAS = {"llama": False, "mistral": False, "qwen2": True}
# What transformers takes for a key that is absent; a key that is null says that there is none
ABSENT = {
    "llama": {"num_key_value_heads": None, "max_position_embeddings": 2048},
    "mistral": {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "max_position_embeddings": 32768, "sliding_window": 4096},
}
# What is said of rotary positions whatever the rule; each rule of scaling, and what it needs
ROPE = ("rope_theta", "rope_type", "type", "partial_rotary_factor")
ROPE_RULES = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
NEUTRAL = {"factor": 1.0, "attention_factor": 1.0}  # what changes nothing, whatever the rule
# Our name -> Hugging Face's: of a layer's arrays, within "model.layers.{i}."; biases as `arrays.other_name`
LAYER = {
    "attn_norm": "input_layernorm.weight",
    "wq": "self_attn.q_proj.weight",
    "wk": "self_attn.k_proj.weight",
    "wv": "self_attn.v_proj.weight",
    "wo": "self_attn.o_proj.weight",
    "mlp_norm": "post_attention_layernorm.weight",
    "w_gate": "mlp.gate_proj.weight",
    "w_up": "mlp.up_proj.weight",
    "w_down": "mlp.down_proj.weight",
    "sink_logits": "self_attn.sinks",
}
MODEL = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
# Tables that other tools write beside these, and that a forward pass makes for itself
HARMLESS = (
    r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)",
    r"(model\.)?position_ids",
)
PREFIX, LAYERS = "model.", "layers"  # some files leave the prefix out


def is_transposed(name):
    """Tell whether Hugging Face stores it as (out, in): every matrix but the embedding."""
    return name != "embed"


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported."""
    model_type = one_of(raw, "model_type", tuple(QKV_BIAS))
    raw = ABSENT[model_type] | raw
    one_of(raw, "hidden_act", ("silu", "swish"), "silu")
    refuse(raw, partial_rotary_factor=1.0, quantization_config=None)
    C, H = positive_int(raw, "hidden_size"), positive_int(raw, "num_attention_heads")
    if raw.get("head_dim") is None:
        divides(H, C, ("num_attention_heads", "hidden_size"))
    K = positive_int(raw, "num_key_value_heads", H)
    divides(K, H, ("num_key_value_heads", "num_attention_heads"))
    D = positive_int(raw, "head_dim", C // H or None)
    if D % 2:
        raise ValueError(f"head_dim is {D}; rotary positions need an even one")
    n_layers, max_positions = positive_int(raw, "num_hidden_layers"), positive_int(raw, "max_position_embeddings")
    _refuse_sliding_window(raw, model_type, n_layers, max_positions)
    theta, scaling = _rope(raw)
    V = positive_int(raw, "vocab_size")
    llama_bias = model_type == "llama" and flag(raw, "attention_bias", False)
    return llama.Config(
        d_model=C,
        n_layers=n_layers,
        n_heads=H,
        n_kv_heads=K,
        head_dim=D,
        d_ff=positive_int(raw, "intermediate_size"),
        vocab_size=V,
        max_positions=max_positions,
        norm_eps=number(raw, "rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        qkv_bias=QKV_BIAS[model_type] or llama_bias,
        o_bias=llama_bias,
        mlp_bias=model_type == "llama" and flag(raw, "mlp_bias", False),
        tied=flag(raw, "tie_word_embeddings", False),
        **ends_and_softmax(raw, V),
        model_type=model_type,
    )


def write_config(config):
    """Translate back, but for what `folder.raw_of` adds for every architecture. ValueError where biases are mixed."""
    classes = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
    raw = {
        "architectures": [classes[config.model_type]],
        "model_type": config.model_type,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": config.rope_scaling,
        "hidden_act": "silu",
    }
    if config.model_type == "llama":
        if config.qkv_bias != config.o_bias:
            raise ValueError("a config.json of Llama has one attention_bias: qkv_bias and o_bias must be alike")
        raw.update(attention_bias=config.o_bias, mlp_bias=config.mlp_bias)
    if config.model_type == "mistral":
        raw["sliding_window"] = None
    return raw


def _rope(raw):
    """Read the base and the scaling rule, in any of the three spellings Hugging Face has used.

    Where two stand side by side, the one that transformers takes counts: `rope_scaling`, which model cards tell people
    to add, before `rope_parameters`; `rope_theta` within the section before the one beside it; and
    `original_max_position_embeddings` beside the section before the one within it.
    """
    name = "rope_scaling" if section(raw, "rope_scaling") else "rope_parameters"
    rope, other = section(raw, name), section(raw, "rope_parameters")
    if other not in ({}, rope):
        warnings.warn("rope_parameters is not used beside rope_scaling, as in transformers", stacklevel=2)
    refuse(rope, partial_rotary_factor=1.0)
    theta = number(rope, "rope_theta", number(raw, "rope_theta", 10000.0))
    rule = rope.get("rope_type", rope.get("type", "default"))
    rule = one_of({"rope type": rule}, "rope type", tuple(ROPE_RULES))
    _account_for(name, rope, rule)
    if rule == "default":
        return theta, None
    trained = "original_max_position_embeddings"
    rope = {trained: raw["max_position_embeddings"]} | rope | {key: raw[key] for key in raw if key == trained}
    scaling = {"rope_type": rule} | {key: number(rope, key) for key in ROPE_RULES[rule]}
    if rule == "llama3" and scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        raise ValueError(f"high_freq_factor is {high}; it must be above low_freq_factor, which is {low}")
    return theta, scaling


def _account_for(name, rope, rule):
    """Warn of each key that a rule does not use, as transformers does; refuse a section for each type of layer."""
    for key, value in rope.items():
        if key in ROPE or key in ROPE_RULES[rule] or value in (None, NEUTRAL.get(key)):
            continue
        if isinstance(value, dict):
            raise ValueError(f"{name} has {key} {brief(value)}, which is not supported")
        warnings.warn(f"{name} has {key} {brief(value)}: the rule {rule!r} does not use it", stacklevel=2)


def _refuse_sliding_window(raw, model_type, n_layers, max_positions):
    """Refuse a window built into the model, which changes every mask, but for texts that are no longer than it."""
    if model_type == "llama" or raw["sliding_window"] is None:
        return
    if model_type == "qwen2" and not (flag(raw, "use_sliding_window", False) and _some_layer_slides(raw, n_layers)):
        return
    window = positive_int(raw, "sliding_window")
    if window < max_positions:
        shorter = f"sliding_window is {window}, shorter than max_position_embeddings {max_positions}"
        remedy = "null in its place sees every token, which is the same for texts within it"
        raise ValueError(f"{shorter}: a window inside the model is not supported; {remedy}")
    warnings.warn(f"sliding_window is {window}: in a longer text every token is seen all the same", stacklevel=2)


def _some_layer_slides(raw, n_layers):
    """Tell whether a layer of Qwen2 has the window: those that are named, or those from `max_window_layers` on."""
    kinds = raw.get("layer_types")
    if kinds is not None:
        return not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds)
    full = raw.get("max_window_layers", 28)
    return not isinstance(full, int) or full < n_layers
