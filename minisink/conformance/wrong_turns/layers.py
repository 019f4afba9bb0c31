"""Wrong turns between layers."""

from .right import Cache


class OneForAll(Cache):
    """layers share one state, and their keys stand between each other's: give each its own"""

    name = "one state for all layers"
    shared = True
