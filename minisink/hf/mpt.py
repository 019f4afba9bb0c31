"""MPT's ``config.json`` and tensor names, translated once: to ours when a folder is read, back when it is written."""

import warnings

from ..families import mpt
from .fields import brief, common, number, one_of, refuse, renamed, section, written
from .llama import is_transposed  # noqa: F401  (of every matrix but the embedding)
from .names import OUTER, SKELETON, column

# Names of other models' sizes, which transformers accepts too
ALIASES = {"hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
# Our name -> Hugging Face's: of the numbers in a config.json
KEYS = {"d_model": "d_model", "n_layers": "n_layers", "n_heads": "n_heads"}
KEYS |= {"max_positions": "max_seq_len", "norm_eps": "layer_norm_epsilon"}
HARMLESS = (r"(transformer\.)?attn_bias",)  # the slopes times the distances
PREFIX, LAYERS = "transformer.", "blocks"  # some files leave the prefix out
MODEL, LAYER = column(OUTER, "mpt", PREFIX), column(SKELETON, "mpt")
BY_HEAD = False


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported.

    transformers ignores `alibi_bias_max` and uses slopes for 8; here it counts, as it did when MosaicML trained the
    model. The MLP is always four times as wide as the model, and a tensor of another shape is refused.
    """
    one_of(raw, "model_type", ("mpt",))
    raw = renamed(raw, ALIASES)
    sizes = common(raw, KEYS, tied=True, mlp_widths=4, max_positions=2048)
    C, H = sizes["d_model"], sizes["n_heads"]
    refuse(raw, quantization_config=None, logit_scale=1.0, ffn_config={"ffn_type": "mptmlp"})
    one_of(raw, "norm_type", ("low_precision_layernorm", "layernorm"), "layernorm")
    attention = section(raw, "attn_config")
    refuse(attention, attn_type="multihead_attention", alibi=True, softmax_scale=(C // H) ** -0.5, kv_n_heads=H)
    refuse(attention, qk_ln=False, qk_gn=False, prefix_lm=False, rope=False, sliding_window_size=-1)
    refuse(attention, clip_qkv=0)
    bias_max = number(attention, "alibi_bias_max", 8)
    if raw.get("expansion_ratio") not in (None, 4):
        warnings.warn(
            f"expansion_ratio is {brief(raw['expansion_ratio'])}: it is not used, as in transformers", stacklevel=2
        )
    if bias_max != 8:
        warnings.warn(f"alibi_bias_max is {bias_max:g}: it counts; transformers uses 8 all the same", stacklevel=2)
    return mpt.Config(**sizes, alibi_bias_max=bias_max)


def write_config(config):
    """Translate back, without what `folder.raw_of` adds for all architectures; ValueError if it has no key."""
    if config.d_ff != 4 * config.d_model:
        raise ValueError(f"d_ff is {config.d_ff}; the MLP of an MPT has 4 times d_model, {4 * config.d_model}")
    bias_max = config.alibi_bias_max
    return {
        "architectures": ["MptForCausalLM"],
        "model_type": "mpt",
        **written(config, KEYS),
        "expansion_ratio": 4,
        "no_bias": True,
        "learned_pos_emb": False,
        "attn_config": {"alibi": True, "alibi_bias_max": int(bias_max) if bias_max == int(bias_max) else bias_max},
    }
