"""What GPT-NeoX, Falcon and MPT have in common: GPT-2's skeleton (config, weights, forward) with a choice of parts.

Each family's config chooses how positions enter, how many key heads there are, whether attention and MLP run side by
side, and which of GPT-2's arrays are missing (None). `w_qkv` is (C, (H + 2 K) * D).

Letters: T tokens, C model width, H heads, K key/value heads, D head width, F MLP width, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np

from .. import gpt2
from ..attention import normaliser
from ..gpt2 import LayerWeights, Weights  # noqa: F401
from ..ops import ACTIVATIONS, layer_norm, linear
from ..paths import Path, Uncached


@dataclass(frozen=True)
class Config(gpt2.Config):
    """GPT-2's fixed numbers; each family adds its `encoding`, and the arrays that it is `without`."""

    max_positions: int = 2048  # the longest text seen in training, in tokens

    learned_positions = False
    activation = "gelu"  # see `ops.ACTIVATIONS`


def forward(ids, weights, config, *, path: Path | None = None, rows=None, trace: dict | None = None):
    """Logits (T, V) of the next token after each token of `ids` (T,); the arguments are those of `llama.forward`."""
    path = Uncached() if path is None else path
    H, K, D, eps = config.n_heads, config.n_kv_heads, config.head_dim, config.norm_eps
    T, encoding, activate = len(ids), config.encoding, ACTIVATIONS[config.activation]
    path.positions(T)  # refuses a cache it cannot continue; rotation, or a slope, happens inside `mix`
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


# The shapes of the learned arrays; `hf.arrays` lists them by name -----------------------------------


def layer_shapes(config):
    """Return the shape of every array in `LayerWeights` that a model of this config has."""
    C, F, QKV = config.d_model, config.d_ff, (config.n_heads + 2 * config.n_kv_heads) * config.head_dim
    shapes: dict = {"ln1": (C,), "ln1_b": (C,), "w_qkv": (C, QKV), "wo": (C, C), "ln2": (C,), "ln2_b": (C,)}
    shapes |= {"w_up": (C, F), "b_up": (F,), "w_down": (F, C), "b_down": (C,), "b_qkv": (QKV,), "bo": (C,)}
    if config.sink_logit:
        shapes["sink_logits"] = (config.n_heads,)
    return {name: shape for name, shape in shapes.items() if name not in config.without}


def outer_shapes(config):
    """Return the shapes of `Weights` besides embedding, output matrix and layers."""
    return {name: (config.d_model,) for name in ("norm", "norm_b") if name not in config.without}
