"""MPT's ``config.json``, translated once: to our `Config` when a folder is read, back when it is written."""

import warnings

from ..families import mpt
from .fields import brief, common, number, one_of, refuse, renamed, section

# Other models' names for sizes, which transformers accepts here too
ALIASES = {"hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
# Our names -> Hugging Face's
KEYS = {"d_model": "d_model", "n_layers": "n_layers", "n_heads": "n_heads"}
KEYS |= {"max_positions": "max_seq_len", "norm_eps": "layer_norm_epsilon"}


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported.

    transformers ignores `alibi_bias_max` and uses slopes for 8; here it is used, as it was when MosaicML trained the
    model. The MLP is always four times as wide as the model.
    """
    raw = renamed(raw, ALIASES)
    sizes = common(raw, KEYS, tied=True, mlp_widths=4, max_positions=2048)
    C, H = sizes["d_model"], sizes["n_heads"]
    refuse(raw, logit_scale=1.0, ffn_config={"ffn_type": "mptmlp"})
    one_of(raw, "norm_type", ("low_precision_layernorm", "layernorm"), "layernorm")
    attention = section(raw, "attn_config")
    refuse(attention, attn_type="multihead_attention", alibi=True, softmax_scale=(C // H) ** -0.5, kv_n_heads=H)
    refuse(attention, qk_ln=False, qk_gn=False, prefix_lm=False, rope=False, sliding_window_size=-1, clip_qkv=0)
    bias_max = number(attention, "alibi_bias_max", 8)
    ratio = raw.get("expansion_ratio")
    if ratio not in (None, 4):
        warnings.warn(f"expansion_ratio is {brief(ratio)}: it is not used, as in transformers", stacklevel=2)
    if bias_max != 8:
        warnings.warn(f"alibi_bias_max is {bias_max:g}: it is used here; transformers always uses 8", stacklevel=2)
    return mpt.Config(**sizes, alibi_bias_max=bias_max)


def write_config(config):
    """Return the keys besides `KEYS`; raise ValueError for an MLP width that no key can express."""
    if config.d_ff != 4 * config.d_model:
        raise ValueError(f"d_ff is {config.d_ff}; the MLP of an MPT is 4 times d_model wide, {4 * config.d_model}")
    bias_max = config.alibi_bias_max
    attention = {"alibi": True, "alibi_bias_max": int(bias_max) if bias_max == int(bias_max) else bias_max}
    return {"expansion_ratio": 4, "no_bias": True, "learned_pos_emb": False, "attn_config": attention}
