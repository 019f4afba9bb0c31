"""Llama's ``config.json``, translated once: to our `Config` when a folder is read, back when it is written."""

import warnings

from .. import llama
from .fields import SIZES, common, flag, one_of, positive_int
from .rope import read_rope

# Whether q, k and v have a bias if the config does not say
QKV_BIAS = {"llama": False, "mistral": False, "qwen2": True, "qwen3": False}
QKVO_BIAS = ("llama", "qwen3")  # these have one attention_bias for all four
# transformers' defaults for absent keys; a null key means none
QWEN = {"num_key_value_heads": 32, "max_position_embeddings": 32768, "sliding_window": 4096}
ABSENT = {"llama": {"max_position_embeddings": 2048}, "qwen2": QWEN, "qwen3": QWEN | {"head_dim": 128}}
ABSENT["mistral"] = {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096}
# Our names -> Hugging Face's
KEYS = SIZES | {"d_ff": "intermediate_size", "norm_eps": "rms_norm_eps", "rope_theta": "rope_theta"}
KEYS |= {"head_dim": "head_dim", "n_kv_heads": "num_key_value_heads"}


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported."""
    model_type = raw["model_type"]
    raw = ABSENT[model_type] | raw
    one_of(raw, "hidden_act", ("silu", "swish"), "silu")
    sizes = common(raw, KEYS, tied=False, norm_eps=1e-6)
    _refuse_sliding_window(raw, model_type, sizes["n_layers"], sizes["max_positions"])
    rope, _ = read_rope(raw)
    bias = model_type in QKVO_BIAS and flag(raw, "attention_bias", False)
    biases: dict = {"qkv_bias": QKV_BIAS[model_type] or bias, "o_bias": bias}
    biases["mlp_bias"] = model_type == "llama" and flag(raw, "mlp_bias", False)
    return llama.Config(**sizes, **rope, **biases, qk_norm=model_type == "qwen3", model_type=model_type)


def write_config(config):
    """Return the keys besides `KEYS`; raise ValueError for a norm or biases that no key can express."""
    if config.qk_norm != (config.model_type == "qwen3"):
        raise ValueError(f"qk_norm is {config.qk_norm}, which a config.json of {config.model_type} cannot express")
    raw: dict = {"hidden_act": "silu"}
    if config.model_type in QKVO_BIAS:
        if config.qkv_bias != config.o_bias:
            name = config.model_type.capitalize()
            raise ValueError(f"a config.json of {name} has one attention_bias: qkv_bias and o_bias must be equal")
        raw["attention_bias"] = config.o_bias
    own = {"llama": {"mlp_bias": config.mlp_bias}, "mistral": {"sliding_window": None}}
    return raw | own.get(config.model_type, {})


def _refuse_sliding_window(raw, model_type, n_layers, max_positions):
    """Refuse a window built into the model, which changes every mask, unless no text is longer than it."""
    if raw.get("sliding_window") is None or model_type == "llama":
        return
    if model_type != "mistral" and not (flag(raw, "use_sliding_window", False) and _some_layer_slides(raw, n_layers)):
        return
    window = positive_int(raw, "sliding_window")
    if window < max_positions:
        shorter = f"sliding_window is {window}, shorter than max_position_embeddings {max_positions}"
        remedy = "set it to null to see every token; texts within it are not affected"
        raise ValueError(f"{shorter}: a window inside the model is not supported; {remedy}")
    warnings.warn(f"sliding_window is {window}: in a longer text every token is still seen", stacklevel=2)


def _some_layer_slides(raw, n_layers):
    """Return whether a layer of Qwen has the window: a named layer, or any from layer `max_window_layers` up."""
    kinds, full = raw.get("layer_types"), raw.get("max_window_layers", 28)
    if kinds is None:
        return not isinstance(full, int) or full < n_layers
    return not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds)
