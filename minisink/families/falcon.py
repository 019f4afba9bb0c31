"""Falcon: all heads share one key and one value (multi-query), or a few do; attention and MLP run side by side.

Almazrouei et al., arXiv:2311.16867, sections 3.2 and 4.3.1: the cache of a token is one head wide, not H, which is what
decoding reads (Shazeer, arXiv:1911.02150). Falcon-7B has one norm for both halves of a layer, Falcon-40B and 180B have
one each, and several key heads. Positions are rotary, over the whole head.

Letters: T tokens, C model width, H heads, K key/value heads, D head width, F MLP width, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np

from ..attention import normaliser
from ..ops import ACTIVATIONS, layer_norm, linear
from ..paths import Path, Uncached
from ..positions import Rotary, rope_frequencies
from .weights import LayerWeights as LayerWeights
from .weights import Weights as Weights


@dataclass(frozen=True)
class Config:
    """The fixed numbers of one model; names of Hugging Face are translated in `hf.falcon`."""

    d_model: int  # C
    n_layers: int  # L
    n_heads: int  # H
    n_kv_heads: int  # K: 1 in Falcon-7B
    d_ff: int  # F
    vocab_size: int  # V
    max_positions: int = 2048  # the longest text seen in training, in tokens
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None  # see `positions.rope_frequencies`
    parallel: bool = True  # whether attention and MLP run side by side
    n_norms: int = 1  # of a layer where they do; one after the other they have two
    bias: bool = False  # whether linear maps have one
    activation: str = "gelu"  # see `ops.ACTIVATIONS`
    tied: bool = True  # whether the output matrix is the embedding
    bos: int | None = None  # token id that begins a text
    eos: tuple[int, ...] = ()  # token ids that end one
    softmax: str = "softmax"  # scores to weights: "softmax", "softmax1" or "relu"
    sink_logit: bool = False  # whether every head has a learned sink logit

    model_type = "falcon"
    learned_positions = False

    @property
    def head_dim(self) -> int:
        """D."""
        return self.d_model // self.n_heads

    @property
    def encoding(self) -> Rotary:
        """How a query or key gets its position."""
        return Rotary(rope_frequencies(self.head_dim, self.rope_theta, self.rope_scaling))


def forward(ids, weights, config, *, path: Path | None = None, rows=None, trace: dict | None = None):
    """Logits (T, V) of the next token after each token of `ids` (T,); the arguments are those of `llama.forward`."""
    path = Uncached() if path is None else path
    H, K, D, eps = config.n_heads, config.n_kv_heads, config.head_dim, config.norm_eps
    T, encoding, activate = len(ids), config.encoding, ACTIVATIONS[config.activation]
    path.positions(T)  # refuses a cache it cannot go on with; rotation happens inside `mix`
    inside: list = [None if trace is None else {} for _ in weights.layers]
    x = weights.embed[np.asarray(ids, like=weights.embed)]  # (T,) -> (T, C)
    for i, layer in enumerate(weights.layers):
        h = layer_norm(x, layer.ln1, layer.ln1_b, eps)
        heads = linear(h, layer.w_qkv, layer.b_qkv).reshape(T, H + 2 * K, D)  # (T, C) -> (T, H + 2 K, D)
        q, k, v = heads[:, :H], heads[:, H : H + K], heads[:, H + K :]
        normalise = normaliser(config.softmax, layer.sink_logits)
        mixed = path.mix(i, q, k, v, encoding, normalise=normalise, trace=inside[i])  # (T, H, D)
        if trace is not None:
            inside[i].update(x=x, q=q, k=k, v=v, mixed=mixed)
        if rows is not None and i == config.n_layers - 1:
            x, h, mixed = x[rows], h[rows], mixed[rows]  # only these rows are needed for the logits
        attended = x + linear(mixed.reshape(len(x), H * D), layer.wo, layer.bo)
        if layer.ln2 is not None:
            h = layer_norm(x if config.parallel else attended, layer.ln2, layer.ln2_b, eps)  # x: before attention
        x = attended + linear(activate(linear(h, layer.w_up, layer.b_up)), layer.w_down, layer.b_down)  # (T, F) inside
    if trace is not None:
        trace.update(layers=inside, x=x)
    return linear(layer_norm(x, weights.norm, weights.norm_b, eps), weights.head)  # (T, C) -> (T, V)


# The shapes of what is learned; `hf.arrays` lists it by name ----------------------------------------


def layer_shapes(config):
    """Give the shape of every array in `LayerWeights` that a model of this config has."""
    C, F, QKV = config.d_model, config.d_ff, (config.n_heads + 2 * config.n_kv_heads) * config.head_dim
    shapes: dict = {"ln1": (C,), "ln1_b": (C,), "w_qkv": (C, QKV), "wo": (C, C), "w_up": (C, F), "w_down": (F, C)}
    if config.n_norms == 2 or not config.parallel:
        shapes |= {"ln2": (C,), "ln2_b": (C,)}
    if config.bias:
        shapes |= {"b_qkv": (QKV,), "bo": (C,), "b_up": (F,), "b_down": (C,)}
    if config.sink_logit:
        shapes["sink_logits"] = (config.n_heads,)
    return shapes


def outer_shapes(config):
    """Give the shape of what `Weights` has beside embedding, output matrix and layers."""
    return {"norm": (config.d_model,), "norm_b": (config.d_model,)}
