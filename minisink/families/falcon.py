"""Falcon: all heads share one key and one value (multi-query), or a few of each; attention and MLP run side by side.

Almazrouei et al., arXiv:2311.16867, sections 3.2 and 4.3.1: the cache of a token, which decoding reads, is one head
wide instead of H (Shazeer, arXiv:1911.02150). Falcon-7B has one norm for both halves of a layer; Falcon-40B and 180B
have one for each, and several key heads. Positions are rotary, over the whole head.
"""

from dataclasses import dataclass

from ..positions import Rotary, rope_frequencies
from . import skeleton
from .skeleton import LayerWeights, Weights, forward, layer_shapes, outer_shapes  # noqa: F401


@dataclass(frozen=True)
class Config(skeleton.Config):
    """The fixed numbers of one model; Hugging Face's names are translated in `hf.falcon`."""

    n_kv_heads: int = 1  # K: as in Falcon-7B
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None  # see `positions.rope_frequencies`
    parallel: bool = True
    n_norms: int = 1  # in a layer whose halves run side by side; in sequence they have two
    bias: bool = False  # whether linear maps have a bias
    activation: str = "gelu"

    model_type = "falcon"
    encoding = property(lambda self: Rotary(rope_frequencies(self.head_dim, self.rope_theta, self.rope_scaling)))

    @property
    def without(self) -> tuple[str, ...]:
        """The arrays that this model lacks."""
        one_norm = self.parallel and self.n_norms == 1
        return ("ln2", "ln2_b") * one_norm + ("b_qkv", "bo", "b_up", "b_down") * (not self.bias)
