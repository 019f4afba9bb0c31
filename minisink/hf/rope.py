"""Rotary positions in a ``config.json``: their base, the scaling rule, the part of a head that rotates."""

from .fields import brief, number, one_of, refuse, section

TRAINED = "original_max_position_embeddings"
# Each rule, and the keys it needs
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", TRAINED)
ROPE_RULES: dict[str, tuple] = {"default": (), "linear": ("factor",), "llama3": LLAMA3}


def read_rope(raw, base="rope_theta", part=None):  # -> ({"rope_theta": base, "rope_scaling": None or a rule}, part)
    """Read all three, in any of the spellings Hugging Face has used.

    `base` and `part` are the keys outside of a section; without `part` the whole head rotates. As in transformers, the
    section `rope_scaling`, which model cards tell people to add, comes before `rope_parameters`, and a key inside it
    before one outside, except `original_max_position_embeddings`, where the outer one counts.
    """
    rope = section(raw, "rope_scaling") or section(raw, "rope_parameters")
    for keys in (raw, rope) if part is None else ():
        refuse(keys, partial_rotary_factor=1.0)
    share = number(rope, "partial_rotary_factor", number(raw, part, 0.25) if part else 1.0)
    theta = number(rope, "rope_theta", number(raw, base, 10000.0))
    rule = rope.get("rope_type", rope.get("type", "default"))
    rule = one_of({"rope type": rule}, "rope type", tuple(ROPE_RULES))
    for key, value in rope.items():
        if isinstance(value, dict):  # a section for one type of layer
            raise ValueError(f"{key} is {brief(value)}, which is not supported among rotary positions")
    if rule == "default":
        return {"rope_theta": theta, "rope_scaling": None}, share
    rope = {TRAINED: raw["max_position_embeddings"]} | rope | ({TRAINED: raw[TRAINED]} if TRAINED in raw else {})
    scaling = {"rope_type": rule} | {key: number(rope, key) for key in ROPE_RULES[rule]}
    if rule == "llama3" and scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        raise ValueError(f"high_freq_factor is {high}; it must be above low_freq_factor, which is {low}")
    return {"rope_theta": theta, "rope_scaling": scaling}, share
