"""MPT's ``config.json`` and tensor names, translated once: to ours when a folder is read, back when it is written."""

import warnings

from ..families import mpt
from .fields import brief, divides, ends_and_softmax, flag, number, one_of, positive_int, refuse, renamed, section
from .llama import is_transposed  # noqa: F401  (of every matrix but the embedding)

# Names of other models' sizes, by which transformers takes them as well
ALIASES = {"hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
# Our name -> Hugging Face's: of a layer's arrays, within "transformer.blocks.{i}."
LAYER = {
    "ln1": "norm_1.weight",
    "w_qkv": "attn.Wqkv.weight",
    "wo": "attn.out_proj.weight",
    "ln2": "norm_2.weight",
    "w_up": "ffn.up_proj.weight",
    "w_down": "ffn.down_proj.weight",
    "sink_logits": "attn.sinks",
}
MODEL = {"embed": "transformer.wte.weight", "norm": "transformer.norm_f.weight", "head": "lm_head.weight"}
HARMLESS = (r"(transformer\.)?attn_bias",)  # the slopes times the distances
PREFIX, LAYERS = "transformer.", "blocks"  # some files leave the prefix out
BY_HEAD = False


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported.

    Two readers of it differ. transformers' slopes are those of `alibi_bias_max` 8, whatever is said; here it counts, as
    it did when MosaicML trained the model. The MLP is four widths, here too, and a tensor of another shape is refused.
    """
    one_of(raw, "model_type", ("mpt",))
    raw = renamed(raw, ALIASES)
    C, H, V = positive_int(raw, "d_model"), positive_int(raw, "n_heads"), positive_int(raw, "vocab_size")
    divides(H, C, ("n_heads", "d_model"))
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
        warnings.warn(f"alibi_bias_max is {bias_max:g}: it counts; transformers takes 8 all the same", stacklevel=2)
    return mpt.Config(
        d_model=C,
        n_layers=positive_int(raw, "n_layers"),
        n_heads=H,
        d_ff=4 * C,
        vocab_size=V,
        alibi_bias_max=bias_max,
        max_positions=positive_int(raw, "max_seq_len", 2048),
        norm_eps=number(raw, "layer_norm_epsilon", 1e-5),
        tied=flag(raw, "tie_word_embeddings", True),
        **ends_and_softmax(raw, V),
    )


def write_config(config):
    """Translate back, but for what `folder.raw_of` adds for every architecture. ValueError for what it cannot say."""
    if config.d_ff != 4 * config.d_model:
        raise ValueError(f"d_ff is {config.d_ff}; the MLP of an MPT has 4 times d_model, {4 * config.d_model}")
    bias_max = config.alibi_bias_max
    return {
        "architectures": ["MptForCausalLM"],
        "model_type": "mpt",
        "d_model": config.d_model,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "expansion_ratio": 4,
        "max_seq_len": config.max_positions,
        "layer_norm_epsilon": config.norm_eps,
        "no_bias": True,
        "learned_pos_emb": False,
        "attn_config": {"alibi": True, "alibi_bias_max": int(bias_max) if bias_max == int(bias_max) else bias_max},
    }
