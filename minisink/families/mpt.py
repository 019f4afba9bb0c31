"""MPT: no rotation, no learned positions, but a slope: what is far away scores less (ALiBi).

Press et al., arXiv:2108.12409, section 3: a head takes ``slope * distance`` off the score of each key, with slopes
from 1/2 to 1/256 that are not learned. Under StreamingLLM distances are counted in the cache (Xiao et al.,
arXiv:2309.17453, section 3.2): however long the text, no key is farther away than the cache is long.

There is no bias anywhere, neither in a linear map nor in a norm (MosaicML, MPT-7B, 2023).

Letters: T tokens, C model width, H heads, D head width, F MLP width, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np

from ..attention import normaliser
from ..ops import gelu_erf, layer_norm, linear
from ..paths import Path, Uncached
from ..positions import Slopes, alibi_slopes
from .weights import LayerWeights as LayerWeights
from .weights import Weights as Weights


@dataclass(frozen=True)
class Config:
    """The fixed numbers of one model; names of Hugging Face are translated in `hf.mpt`."""

    d_model: int  # C
    n_layers: int  # L
    n_heads: int  # H
    d_ff: int  # F
    vocab_size: int  # V
    alibi_bias_max: float = 8.0  # the last head's slope is 2 to the power of minus this
    max_positions: int = 2048  # the longest text seen in training, in tokens
    norm_eps: float = 1e-5
    tied: bool = True  # whether the output matrix is the embedding
    bos: int | None = None  # token id that begins a text
    eos: tuple[int, ...] = ()  # token ids that end one
    softmax: str = "softmax"  # scores to weights: "softmax", "softmax1" or "relu"
    sink_logit: bool = False  # whether every head has a learned sink logit

    model_type = "mpt"
    learned_positions = False
    activation = "gelu"  # see `ops.ACTIVATIONS`
    parallel = False  # attention first, then the MLP

    @property
    def head_dim(self) -> int:
        """D."""
        return self.d_model // self.n_heads

    @property
    def n_kv_heads(self) -> int:
        """K: every head has keys and values of its own."""
        return self.n_heads

    @property
    def encoding(self) -> Slopes:
        """How a score comes to know the distance: a slope for each head."""
        return Slopes(alibi_slopes(self.n_heads, self.alibi_bias_max))


def forward(ids, weights, config, *, path: Path | None = None, rows=None, trace: dict | None = None):
    """Logits (T, V) of the next token after each token of `ids` (T,); the arguments are those of `llama.forward`."""
    path = Uncached() if path is None else path
    H, D, eps = config.n_heads, config.head_dim, config.norm_eps
    T, encoding = len(ids), config.encoding
    path.positions(T)  # refuses a cache it cannot go on with; distances are taken inside `mix`
    inside: list = [None if trace is None else {} for _ in weights.layers]
    x = weights.embed[np.asarray(ids, like=weights.embed)]  # (T,) -> (T, C)
    for i, layer in enumerate(weights.layers):
        h = layer_norm(x, layer.ln1, None, eps)
        qkv = linear(h, layer.w_qkv).reshape(T, 3, H, D)  # (T, C) -> (T, 3, H, D)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        normalise = normaliser(config.softmax, layer.sink_logits)
        mixed = path.mix(i, q, k, v, encoding, normalise=normalise, trace=inside[i])  # (T, H, D)
        if trace is not None:
            inside[i].update(x=x, q=q, k=k, v=v, mixed=mixed)
        if rows is not None and i == config.n_layers - 1:
            x, mixed = x[rows], mixed[rows]  # only these rows are needed for the logits
        x = x + linear(mixed.reshape(len(x), H * D), layer.wo)
        h = layer_norm(x, layer.ln2, None, eps)
        x = x + linear(gelu_erf(linear(h, layer.w_up)), layer.w_down)  # (T, F) inside
    if trace is not None:
        trace.update(layers=inside, x=x)
    return linear(layer_norm(x, weights.norm, None, eps), weights.head)  # (T, C) -> (T, V)


# The shapes of what is learned; `hf.arrays` lists it by name ----------------------------------------


def layer_shapes(config):
    """Give the shape of every array in `LayerWeights` that a model of this config has."""
    C, F = config.d_model, config.d_ff
    shapes: dict = {"ln1": (C,), "w_qkv": (C, 3 * C), "wo": (C, C), "ln2": (C,), "w_up": (C, F), "w_down": (F, C)}
    if config.sink_logit:
        shapes["sink_logits"] = (config.n_heads,)
    return shapes


def outer_shapes(config):
    """Give the shape of what `Weights` has beside embedding, output matrix and layers."""
    return {"norm": (config.d_model,)}
