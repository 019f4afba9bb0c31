"""GPT-2's ``config.json`` and tensor names, translated once: to ours when a folder is read, back when it is written."""

from .. import gpt2
from .fields import GELU_NEW, divides, ends_and_softmax, flag, number, one_of, positive_int, refuse, renamed

# Names of other models' sizes, by which transformers takes them as well
ALIASES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}
# Our name -> Hugging Face's: of a layer's arrays, within "transformer.h.{i}."; biases as `arrays.other_name`
LAYER = {
    "ln1": "ln_1.weight",
    "w_qkv": "attn.c_attn.weight",
    "wo": "attn.c_proj.weight",
    "ln2": "ln_2.weight",
    "w_up": "mlp.c_fc.weight",
    "w_down": "mlp.c_proj.weight",
    "sink_logits": "attn.sinks",
}
MODEL = {
    "embed": "transformer.wte.weight",
    "position": "transformer.wpe.weight",
    "norm": "transformer.ln_f.weight",
    "head": "lm_head.weight",
}
# The causal mask that older files carry as a buffer
HARMLESS = (r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",)
PREFIX, LAYERS = "transformer.", "h"  # some files leave the prefix out
BY_HEAD = False


def is_transposed(name):
    """Tell whether Hugging Face stores it as (out, in): the output matrix only, the others are Conv1D."""
    return name == "head"


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported."""
    one_of(raw, "model_type", ("gpt2",))
    raw = renamed(raw, ALIASES)
    one_of(raw, "activation_function", GELU_NEW, "gelu_new")
    refuse(raw, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    refuse(raw, add_cross_attention=False, quantization_config=None)
    C, H, V = positive_int(raw, "n_embd"), positive_int(raw, "n_head"), positive_int(raw, "vocab_size")
    divides(H, C, ("n_head", "n_embd"))
    return gpt2.Config(
        d_model=C,
        n_layers=positive_int(raw, "n_layer"),
        n_heads=H,
        d_ff=positive_int(raw, "n_inner", 4 * C),
        vocab_size=V,
        max_positions=positive_int(raw, "n_positions", positive_int(raw, "n_ctx", 1024)),
        norm_eps=number(raw, "layer_norm_epsilon", 1e-5),
        tied=flag(raw, "tie_word_embeddings", True),
        **ends_and_softmax(raw, V),
    )


def write_config(config):
    """Translate back, but for what `folder.raw_of` adds for every architecture."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_inner": config.d_ff,
        "n_positions": config.max_positions,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": "gelu_new",
    }
