"""GPT-2's ``config.json`` and tensor names, translated once: to ours when a folder is read, back when it is written."""

from .. import gpt2
from .fields import GELU_NEW, common, one_of, positive_int, refuse, renamed, written
from .names import OUTER, SKELETON, column

# Names of other models' sizes, which transformers accepts too
ALIASES = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}
# Our name -> Hugging Face's: of the numbers in a config.json
KEYS = {"d_model": "n_embd", "n_layers": "n_layer", "n_heads": "n_head", "d_ff": "n_inner"}
KEYS |= {"max_positions": "n_positions", "norm_eps": "layer_norm_epsilon"}
# The causal mask that older files carry as a buffer
HARMLESS = (r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",)
PREFIX, LAYERS = "transformer.", "h"  # some files leave the prefix out
MODEL, LAYER = column(OUTER, "gpt2", PREFIX), column(SKELETON, "gpt2")
BY_HEAD = False


def is_transposed(name):
    """Return whether Hugging Face stores it as (out, in): only the output matrix, the others are Conv1D."""
    return name == "head"


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported."""
    one_of(raw, "model_type", ("gpt2",))
    raw = renamed(raw, ALIASES)
    one_of(raw, "activation_function", GELU_NEW, "gelu_new")
    refuse(raw, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    refuse(raw, add_cross_attention=False, quantization_config=None)
    longest = positive_int(raw, "n_ctx", 1024)
    return gpt2.Config(**common(raw, KEYS, tied=True, mlp_widths=4, max_positions=longest))


def write_config(config):
    """Translate back, without what `folder.raw_of` adds for all architectures."""
    about = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new"}
    return about | written(config, KEYS)
