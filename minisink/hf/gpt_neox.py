"""GPT-NeoX's ``config.json`` (Pythia's), translated once: to our `Config` when read, back when written."""

import math

from ..families import gpt_neox
from .fields import SIZES, common, flag, gelu
from .rope import read_rope

# Our names -> Hugging Face's
KEYS = SIZES | {"d_ff": "intermediate_size", "norm_eps": "layer_norm_eps", "rope_theta": "rotary_emb_base"}
KEYS |= {"parallel": "use_parallel_residual", "bias": "attention_bias", "activation": "hidden_act"}


def read_config(raw):
    """Translate a parsed ``config.json``; a ValueError names the key that is missing, impossible or not supported."""
    raw = {"max_position_embeddings": 2048} | raw
    sizes = common(raw, KEYS, tied=False)
    D = sizes["d_model"] // sizes["n_heads"]
    rope, part = read_rope(raw, "rotary_emb_base", "rotary_pct")
    R = int(D * part)
    if R % 2 or not 0 < R <= D:
        must = f"it must be even, from 2 to {D}"
        raise ValueError(f"rotary_pct is {part}: {R} of the {D} channels of a head would rotate; {must}")
    flags: dict = {"parallel": flag(raw, "use_parallel_residual", True), "bias": flag(raw, "attention_bias", True)}
    return gpt_neox.Config(**sizes, **rope, **flags, rotary_dim=R, activation=gelu(raw, "hidden_act"))


def write_config(config):
    """Return the keys besides `KEYS`."""
    part = config.rotary_dim / config.head_dim
    if int(config.head_dim * part) < config.rotary_dim:  # 98 * (2 / 98) is less than 2
        part = math.nextafter(part, 1)
    return {"architectures": ["GPTNeoXForCausalLM"], "rotary_pct": part}
