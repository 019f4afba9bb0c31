"""GPT-NeoX, the architecture of Pythia: part of each head rotates, and attention and MLP run side by side.

Black et al., arXiv:2204.06745, section 2.1: both halves of a layer read the same residual stream and are added to it
together, ``x + attention(norm(x)) + mlp(norm(x))``. Pythia (Biderman et al., arXiv:2304.01373) rotates the first
quarter of the channels of a head; the others are multiplied unrotated, whatever the distance.
"""

from dataclasses import dataclass, field

from ..positions import Rotary, rope_frequencies
from . import skeleton
from .skeleton import LayerWeights, Weights, forward, layer_shapes, outer_shapes  # noqa: F401


@dataclass(frozen=True)
class Config(skeleton.Config):
    """The fixed numbers of one model; Hugging Face's names are translated in `hf.gpt_neox`."""

    rotary_dim: int = field(kw_only=True)  # R: the channels of a head that rotate
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None  # see `positions.rope_frequencies`
    parallel: bool = True
    bias: bool = True  # whether attention's linear maps have biases; the MLP's always do
    activation: str = "gelu"
    tied: bool = False

    model_type = "gpt_neox"
    without = property(lambda self: () if self.bias else ("b_qkv", "bo"))
    encoding = property(lambda self: Rotary(rope_frequencies(self.rotary_dim, self.rope_theta, self.rope_scaling)))
