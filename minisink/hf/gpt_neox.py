"""GPT-NeoX's ``config.json`` (Pythia's) and tensor names, translated once: to ours when read, back when written."""

import math

from ..families import gpt_neox
from .fields import common, flag, gelu, one_of, refuse, written
from .llama import is_transposed  # noqa: F401  (of every matrix but the embedding)
from .names import OUTER, SKELETON, column
from .rope import read_rope

# Our name -> Hugging Face's: of the numbers in a config.json
KEYS = {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
KEYS |= {"d_ff": "intermediate_size", "max_positions": "max_position_embeddings", "norm_eps": "layer_norm_eps"}
# Masks and tables that older files carry
HARMLESS = (
    r"(gpt_neox\.)?layers\.\d+\.attention\.(bias|masked_bias)",
    r"(gpt_neox\.)?(layers\.\d+\.attention\.)?rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)",
)
PREFIX, LAYERS = "gpt_neox.", "layers"  # some files leave the prefix out
MODEL, LAYER = column(OUTER, "gpt_neox", PREFIX), column(SKELETON, "gpt_neox")
BY_HEAD = True  # whether a joined matrix holds queries, keys and values head by head


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported."""
    one_of(raw, "model_type", ("gpt_neox",))
    raw = {"max_position_embeddings": 2048} | raw
    refuse(raw, quantization_config=None)
    sizes = common(raw, KEYS, tied=False)
    D = sizes["d_model"] // sizes["n_heads"]
    theta, scaling, part = read_rope(raw, "rotary_emb_base", "rotary_pct")
    R = int(D * part)
    if R % 2 or not 0 < R <= D:
        must = f"it must be even, from 2 to {D}"
        raise ValueError(f"rotary_pct is {part}: of the {D} channels of a head {R} would rotate; {must}")
    return gpt_neox.Config(
        **sizes,
        rotary_dim=R,
        rope_theta=theta,
        rope_scaling=scaling,
        parallel=flag(raw, "use_parallel_residual", True),
        bias=flag(raw, "attention_bias", True),
        activation=gelu(raw, "hidden_act"),
    )


def write_config(config):
    """Translate back, without what `folder.raw_of` adds for all architectures."""
    part = config.rotary_dim / config.head_dim
    if int(config.head_dim * part) < config.rotary_dim:  # 98 * (2 / 98) is less than 2
        part = math.nextafter(part, 1)
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        **written(config, KEYS),
        "rotary_pct": part,
        "rotary_emb_base": config.rope_theta,
        "rope_scaling": config.rope_scaling,
        "use_parallel_residual": config.parallel,
        "attention_bias": config.bias,
        "hidden_act": config.activation,
    }
