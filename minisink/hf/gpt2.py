"""GPT-2's ``config.json``, translated once: to our `Config` when a folder is read, back when it is written."""

from .. import gpt2
from .fields import GELU_NEW, common, one_of, positive_int, refuse, renamed

# Other models' names for sizes, which transformers accepts here too
ALIASES = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
ALIASES["max_position_embeddings"] = "n_positions"
# Our names -> Hugging Face's
KEYS = {"d_model": "n_embd", "n_layers": "n_layer", "n_heads": "n_head", "d_ff": "n_inner"}
KEYS |= {"max_positions": "n_positions", "norm_eps": "layer_norm_epsilon"}


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported."""
    raw = renamed(raw, ALIASES)
    one_of(raw, "activation_function", GELU_NEW, "gelu_new")
    refuse(raw, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    longest = positive_int(raw, "n_ctx", 1024)
    return gpt2.Config(**common(raw, KEYS, tied=True, mlp_widths=4, max_positions=longest))


def write_config(config):
    """Return the keys besides `KEYS`."""
    return {"architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new"}
