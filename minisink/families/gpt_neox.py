"""GPT-NeoX, the architecture of Pythia: a part of each head rotates, and attention and MLP run side by side.

Black et al., arXiv:2204.06745, section 2.1: both halves of a layer read the same residual stream and are added to it
together, ``x + attention(norm(x)) + mlp(norm(x))``. Pythia (Biderman et al., arXiv:2304.01373) rotates the first
quarter of the channels of a head; the others meet each other as they are, whatever the distance.

Letters: T tokens, C model width, H heads, D head width, R channels of a head that rotate, F MLP width, V vocabulary.
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
    """The fixed numbers of one model; names of Hugging Face are translated in `hf.gpt_neox`."""

    d_model: int  # C
    n_layers: int  # L
    n_heads: int  # H
    d_ff: int  # F
    vocab_size: int  # V
    rotary_dim: int  # R
    max_positions: int = 2048  # the longest text seen in training, in tokens
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None  # see `positions.rope_frequencies`
    parallel: bool = True  # whether attention and MLP run side by side
    bias: bool = True  # whether attention's linear maps have one; those of the MLP always do
    activation: str = "gelu"  # see `ops.ACTIVATIONS`
    tied: bool = False  # whether the output matrix is the embedding
    bos: int | None = None  # token id that begins a text
    eos: tuple[int, ...] = ()  # token ids that end one
    softmax: str = "softmax"  # scores to weights: "softmax", "softmax1" or "relu"
    sink_logit: bool = False  # whether every head has a learned sink logit

    model_type = "gpt_neox"
    learned_positions = False

    @property
    def head_dim(self) -> int:
        """D."""
        return self.d_model // self.n_heads

    @property
    def n_kv_heads(self) -> int:
        """K: every head has keys and values of its own."""
        return self.n_heads

    @property
    def encoding(self) -> Rotary:
        """How a query or key gets its position: R/2 frequencies, for the first R channels."""
        return Rotary(rope_frequencies(self.rotary_dim, self.rope_theta, self.rope_scaling))


def forward(ids, weights, config, *, path: Path | None = None, rows=None, trace: dict | None = None):
    """Logits (T, V) of the next token after each token of `ids` (T,); the arguments are those of `llama.forward`."""
    path = Uncached() if path is None else path
    H, D, eps = config.n_heads, config.head_dim, config.norm_eps
    T, encoding, activate = len(ids), config.encoding, ACTIVATIONS[config.activation]
    path.positions(T)  # refuses a cache it cannot go on with; rotation happens inside `mix`
    inside: list = [None if trace is None else {} for _ in weights.layers]
    x = weights.embed[np.asarray(ids, like=weights.embed)]  # (T,) -> (T, C)
    for i, layer in enumerate(weights.layers):
        h = layer_norm(x, layer.ln1, layer.ln1_b, eps)
        qkv = linear(h, layer.w_qkv, layer.b_qkv).reshape(T, 3, H, D)  # (T, C) -> (T, 3, H, D)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        normalise = normaliser(config.softmax, layer.sink_logits)
        mixed = path.mix(i, q, k, v, encoding, normalise=normalise, trace=inside[i])  # (T, H, D)
        if trace is not None:
            inside[i].update(x=x, q=q, k=k, v=v, mixed=mixed)
        if rows is not None and i == config.n_layers - 1:
            x, mixed = x[rows], mixed[rows]  # only these rows are needed for the logits
        attended = x + linear(mixed.reshape(len(x), H * D), layer.wo, layer.bo)
        h = layer_norm(x if config.parallel else attended, layer.ln2, layer.ln2_b, eps)  # x: before attention
        x = attended + linear(activate(linear(h, layer.w_up, layer.b_up)), layer.w_down, layer.b_down)  # (T, F) inside
    if trace is not None:
        trace.update(layers=inside, x=x)
    return linear(layer_norm(x, weights.norm, weights.norm_b, eps), weights.head)  # (T, C) -> (T, V)


# The shapes of what is learned; `hf.arrays` lists it by name ----------------------------------------


def layer_shapes(config):
    """Give the shape of every array in `LayerWeights` that a model of this config has."""
    C, F = config.d_model, config.d_ff
    shapes: dict = {"ln1": (C,), "ln1_b": (C,), "w_qkv": (C, 3 * C), "wo": (C, C), "ln2": (C,), "ln2_b": (C,)}
    shapes |= {"w_up": (C, F), "b_up": (F,), "w_down": (F, C), "b_down": (C,)}
    if config.bias:
        shapes |= {"b_qkv": (3 * C,), "bo": (C,)}
    if config.sink_logit:
        shapes["sink_logits"] = (config.n_heads,)
    return shapes


def outer_shapes(config):
    """Give the shape of what `Weights` has beside embedding, output matrix and layers."""
    return {"norm": (config.d_model,), "norm_b": (config.d_model,)}
