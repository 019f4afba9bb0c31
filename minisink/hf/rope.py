"""Rotary positions in a ``config.json``: their base, the scaling rule, the part of a head that rotates."""

import warnings

from .fields import brief, number, one_of, refuse, section

TRAINED = "original_max_position_embeddings"
# Keys allowed with any rule; then each rule, and the keys it needs
ROPE = ("rope_theta", "rope_type", "type", "partial_rotary_factor")
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", TRAINED)
ROPE_RULES: dict[str, tuple] = {"default": (), "linear": ("factor",), "llama3": LLAMA3}
NEUTRAL = {"factor": 1.0, "attention_factor": 1.0}  # keys that change nothing, whatever the rule


def read_rope(raw, base="rope_theta", part=None):  # -> ({"rope_theta": base, "rope_scaling": None or a rule}, part)
    """Read all three, in any of the spellings Hugging Face has used.

    `base` and `part` are the keys outside of a section; without `part` the whole head rotates. As in transformers, the
    section `rope_scaling`, which model cards tell people to add, takes precedence over `rope_parameters`, and a key
    inside it over one outside, except `original_max_position_embeddings`, where the outer one counts.
    """
    name = "rope_scaling" if section(raw, "rope_scaling") else "rope_parameters"
    rope, other = section(raw, name), section(raw, "rope_parameters")
    if other not in ({}, rope):
        warnings.warn("rope_parameters is not used with rope_scaling, as in transformers", stacklevel=2)
    for keys in (raw, rope) if part is None else ():
        refuse(keys, partial_rotary_factor=1.0)
    share = number(rope, "partial_rotary_factor", number(raw, part, 0.25) if part else 1.0)
    theta = number(rope, "rope_theta", number(raw, base, 10000.0))
    rule = rope.get("rope_type", rope.get("type", "default"))
    rule = one_of({"rope type": rule}, "rope type", tuple(ROPE_RULES))
    for key, value in rope.items():
        if key in ROPE or key in ROPE_RULES[rule] or value in (None, NEUTRAL.get(key)):
            continue
        if isinstance(value, dict):  # a section for one type of layer
            raise ValueError(f"{name} has {key} {brief(value)}, which is not supported")
        warnings.warn(f"{name} has {key} {brief(value)}: the rule {rule!r} does not use it", stacklevel=2)
    if rule == "default":
        return {"rope_theta": theta, "rope_scaling": None}, share
    rope = {TRAINED: raw["max_position_embeddings"]} | rope | ({TRAINED: raw[TRAINED]} if TRAINED in raw else {})
    scaling = {"rope_type": rule} | {key: number(rope, key) for key in ROPE_RULES[rule]}
    if rule == "llama3" and scaling["high_freq_factor"] <= scaling["low_freq_factor"]:
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        raise ValueError(f"high_freq_factor is {high}; it must be above low_freq_factor, which is {low}")
    return {"rope_theta": theta, "rope_scaling": scaling}, share
