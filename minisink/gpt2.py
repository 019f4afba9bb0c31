"""GPT-2, top to bottom: config, weights, forward.

LayerNorm before each half-layer, a GELU MLP, and *learned absolute positions*: one vector per position, added
to the token's embedding before the first layer (Radford et al., 2019). So the position is mixed into everything a cache
keeps, and cannot be changed when the token moves to another slot:

- ``Recompute`` is exact, because it rebuilds every window from its tokens;
- a window or streaming cache with ``positions="slot"`` embeds a new token at ``min(t, capacity - 1)``: once the
  cache is full every new token gets the same position, and keys keep the position they entered with;
- with ``positions="original"`` a text longer than the learned positions is refused.

docs/gpt2.md measures what that costs.

Letters: T tokens, C model width, H heads, D head width, F MLP width, V vocabulary, P positions.
"""

from dataclasses import dataclass

import numpy as np

from .attention import normaliser
from .ops import gelu, layer_norm, linear
from .paths import Path, Uncached
from .positions import unrotated


@dataclass(frozen=True)
class Config:
    """The fixed numbers of one model; Hugging Face's names are translated in `hf.gpt2`."""

    d_model: int  # C
    n_layers: int  # L
    n_heads: int  # H
    d_ff: int  # F
    vocab_size: int  # V
    max_positions: int  # P, the number of learned positions: texts cannot be longer
    norm_eps: float = 1e-5
    tied: bool = True  # whether the output matrix is the embedding
    bos: int | None = None  # token id that begins a text
    eos: tuple[int, ...] = ()  # token ids that end one
    softmax: str = "softmax"  # scores to weights: "softmax", "softmax1" or "relu"
    sink_logit: bool = False  # whether every head has a learned sink logit

    model_type = "gpt2"
    learned_positions = True  # positions cannot be changed
    activation = "gelu_new"  # see `ops.ACTIVATIONS`
    parallel = False  # attention first, then the MLP
    encoding = staticmethod(unrotated)

    @property
    def head_dim(self) -> int:
        """D."""
        return self.d_model // self.n_heads

    @property
    def n_kv_heads(self) -> int:
        """K: every head has its own keys and values."""
        return self.n_heads


@dataclass
class LayerWeights:
    """The learned arrays of one layer."""

    ln1: np.ndarray  # (C,)
    ln1_b: np.ndarray  # (C,)
    w_qkv: np.ndarray  # (C, 3 * C): queries, keys and values side by side
    b_qkv: np.ndarray  # (3 * C,)
    wo: np.ndarray  # (C, C)
    bo: np.ndarray  # (C,)
    ln2: np.ndarray  # (C,)
    ln2_b: np.ndarray  # (C,)
    w_up: np.ndarray  # (C, F)
    b_up: np.ndarray  # (F,)
    w_down: np.ndarray  # (F, C)
    b_down: np.ndarray  # (C,)
    sink_logits: np.ndarray | None = None  # (H,)


@dataclass
class Weights:
    """The learned arrays of the model."""

    embed: np.ndarray  # (V, C)
    position: np.ndarray  # (P, C)
    layers: list[LayerWeights]
    norm: np.ndarray  # (C,)
    norm_b: np.ndarray  # (C,)
    head: np.ndarray  # (C, V)


def forward(ids, weights, config, *, path: Path | None = None, rows=None, trace: dict | None = None):
    """Logits (T, V) of the next token after each token of `ids` (T,); the arguments are those of `llama.forward`.

    The `path` also gives each token's position; one beyond the learned positions raises ValueError.
    """
    path = Uncached() if path is None else path
    H, D = config.n_heads, config.head_dim
    T = len(ids)
    positions = path.positions(T)
    check_learned(positions, config)
    inside: list = [None if trace is None else {} for _ in weights.layers]
    ids, positions = np.asarray(ids, like=weights.embed), np.asarray(positions, like=weights.embed)
    x = weights.embed[ids] + weights.position[positions]  # (T,) -> (T, C)
    for i, layer in enumerate(weights.layers):
        h = layer_norm(x, layer.ln1, layer.ln1_b, config.norm_eps)
        qkv = linear(h, layer.w_qkv, layer.b_qkv).reshape(T, 3, H, D)  # (T, C) -> (T, 3, H, D)
        q, k, v = qkv[:, 0], qkv[:, 1], qkv[:, 2]
        normalise = normaliser(config.softmax, layer.sink_logits)
        mixed = path.mix(i, q, k, v, config.encoding, normalise=normalise, trace=inside[i])  # (T, H, D)
        if trace is not None:
            inside[i].update(x=x, q=q, k=k, v=v, mixed=mixed)
        if rows is not None and i == config.n_layers - 1:
            x, mixed = x[rows], mixed[rows]  # only these rows are needed for the logits
        x = x + linear(mixed.reshape(len(x), H * D), layer.wo, layer.bo)
        h = layer_norm(x, layer.ln2, layer.ln2_b, config.norm_eps)
        x = x + linear(gelu(linear(h, layer.w_up, layer.b_up)), layer.w_down, layer.b_down)  # (T, F) inside
    if trace is not None:
        trace.update(layers=inside, x=x)
    return linear(layer_norm(x, weights.norm, weights.norm_b, config.norm_eps), weights.head)  # -> (T, V)


def check_learned(positions, config):  # (T,) ascending
    """Refuse a position beyond the learned ones."""
    if positions[-1] >= config.max_positions:
        first, n_learned = max(positions[0], config.max_positions), config.max_positions
        remedy = "use method='recompute', or positions='slot' with a capacity that fits"
        raise ValueError(f"position {first} is beyond the {n_learned} learned positions of this GPT-2; {remedy}")


# The shapes of the learned arrays; `hf.arrays` lists them by name -----------------------------------


def layer_shapes(config):
    """Return the shape of every array in `LayerWeights` that a model of this config has."""
    C, F = config.d_model, config.d_ff
    shapes: dict = {"ln1": (C,), "ln1_b": (C,), "w_qkv": (C, 3 * C), "b_qkv": (3 * C,), "wo": (C, C), "bo": (C,)}
    shapes |= {"ln2": (C,), "ln2_b": (C,), "w_up": (C, F), "b_up": (F,), "w_down": (F, C), "b_down": (C,)}
    if config.sink_logit:
        shapes["sink_logits"] = (config.n_heads,)
    return shapes


def outer_shapes(config):
    """Return the shapes of the arrays in `Weights` other than the embedding, output matrix and layers."""
    C = config.d_model
    return {"norm": (C,), "norm_b": (C,), "position": (config.max_positions, C)}
