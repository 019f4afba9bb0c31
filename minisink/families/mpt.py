"""MPT: no rotation, no learned positions, but slopes: distant keys score less (ALiBi).

Press et al., arXiv:2108.12409, section 3: a head subtracts ``slope * distance`` from the score of each key, with slopes
from 1/2 to 1/256 that are not learned. Under StreamingLLM distances are counted in the cache (Xiao et al.,
arXiv:2309.17453, section 3.2): however long the text, no key is farther away than the cache's length.

Neither linear maps nor norms have a bias (MosaicML, MPT-7B, 2023).
"""

from dataclasses import dataclass

from ..positions import Slopes, alibi_slopes
from . import skeleton
from .skeleton import LayerWeights, Weights, forward, layer_shapes, outer_shapes  # noqa: F401


@dataclass(frozen=True)
class Config(skeleton.Config):
    """The fixed numbers of one model; Hugging Face's names are translated in `hf.mpt`."""

    alibi_bias_max: float = 8.0  # the last head's slope is 2 to the power of minus this

    model_type = "mpt"
    without = ("ln1_b", "ln2_b", "norm_b", "b_qkv", "bo", "b_up", "b_down")
    encoding = property(lambda self: Slopes(alibi_slopes(self.n_heads, self.alibi_bias_max)))
