"""Llama, top to bottom: config, weights, forward.

RMSNorm before each half-layer, rotary positions inside attention, grouped key/value heads, a gated MLP
(Touvron et al., arXiv:2302.13971 and 2307.09288). Mistral and Qwen2 models differ only by a bias or an
unused window; Qwen3 also norms every query and key (arXiv:2505.09388, section 2).

Letters: T tokens, C model width, H query heads, K key/value heads, D head width, F MLP width, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np

from .attention import normaliser
from .ops import linear, rms_norm, silu
from .paths import Path, Uncached
from .positions import Rotary, rope_frequencies


@dataclass(frozen=True)
class Config:
    """The fixed numbers of one model; Hugging Face's names are translated in `hf.llama`."""

    d_model: int  # C
    n_layers: int  # L
    n_heads: int  # H
    n_kv_heads: int  # K
    head_dim: int  # D
    d_ff: int  # F
    vocab_size: int  # V
    max_positions: int = 2048  # the longest text seen in training, in tokens
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None  # see `positions.rope_frequencies`
    qkv_bias: bool = False  # which linear maps have a bias
    o_bias: bool = False
    mlp_bias: bool = False
    tied: bool = False  # whether the output matrix is the embedding
    bos: int | None = None  # token id that begins a text
    eos: tuple[int, ...] = ()  # token ids that end one; Llama 3 has several
    softmax: str = "softmax"  # scores to weights: "softmax", "softmax1" or "relu"
    sink_logit: bool = False  # whether every head has a learned sink logit
    qk_norm: bool = False  # whether queries and keys are normed, head by head (Qwen3)
    model_type: str = "llama"  # or "mistral", "qwen2", "qwen3": what the model calls itself

    learned_positions = False

    @property
    def frequencies(self) -> np.ndarray:
        """ndarray of shape (D/2,): radians per position of each channel pair."""
        return rope_frequencies(self.head_dim, self.rope_theta, self.rope_scaling)

    @property
    def encoding(self) -> Rotary:
        """How a query or key gets its position."""
        return Rotary(self.frequencies)


@dataclass
class LayerWeights:
    """The learned arrays of one layer; a bias the model does not have is None."""

    attn_norm: np.ndarray  # (C,)
    wq: np.ndarray  # (C, H * D)
    wk: np.ndarray  # (C, K * D)
    wv: np.ndarray  # (C, K * D)
    wo: np.ndarray  # (H * D, C)
    mlp_norm: np.ndarray  # (C,)
    w_gate: np.ndarray  # (C, F)
    w_up: np.ndarray  # (C, F)
    w_down: np.ndarray  # (F, C)
    bq: np.ndarray | None = None  # (H * D,)
    bk: np.ndarray | None = None  # (K * D,)
    bv: np.ndarray | None = None  # (K * D,)
    bo: np.ndarray | None = None  # (C,)
    b_gate: np.ndarray | None = None  # (F,)
    b_up: np.ndarray | None = None  # (F,)
    b_down: np.ndarray | None = None  # (C,)
    q_norm: np.ndarray | None = None  # (D,)
    k_norm: np.ndarray | None = None  # (D,)
    sink_logits: np.ndarray | None = None  # (H,)


@dataclass
class Weights:
    """The learned arrays of the model."""

    embed: np.ndarray  # (V, C)
    layers: list[LayerWeights]
    norm: np.ndarray  # (C,)
    head: np.ndarray  # (C, V)


def forward(ids, weights, config, *, path: Path | None = None, rows=None, trace: dict | None = None):
    """Logits (T, V) of the next token after each token of `ids` (T,).

    `path` says which keys the tokens see (default `paths.Uncached`). With `rows`, a slice or ints, the other tokens are
    computed only as far as attention needs them. If `trace` is a dict, it receives ``"layers"``, a list of one dict per
    layer: residual stream ``"x"`` (T, C) before the layer, un-rotated ``"q"`` (T, H, D), ``"k"`` and ``"v"`` (T, K, D),
    ``"scores"`` and ``"pattern"`` (H, T, S), ``"mixed"`` (T, H, D); and ``"x"`` (T, C), the residual stream at the end.
    """
    path = Uncached() if path is None else path
    H, K, D = config.n_heads, config.n_kv_heads, config.head_dim
    T = len(ids)
    encoding = config.encoding
    path.positions(T)  # refuses a cache it cannot continue; rotation happens inside `mix`
    inside: list = [None if trace is None else {} for _ in weights.layers]
    x = weights.embed[np.asarray(ids, like=weights.embed)]  # (T,) -> (T, C)
    for i, layer in enumerate(weights.layers):
        h = rms_norm(x, layer.attn_norm, config.norm_eps)
        q = linear(h, layer.wq, layer.bq).reshape(T, H, D)  # (T, C) -> (T, H, D)
        k = linear(h, layer.wk, layer.bk).reshape(T, K, D)  # (T, C) -> (T, K, D)
        v = linear(h, layer.wv, layer.bv).reshape(T, K, D)
        if config.qk_norm:
            q, k = rms_norm(q, layer.q_norm, config.norm_eps), rms_norm(k, layer.k_norm, config.norm_eps)
        normalise = normaliser(config.softmax, layer.sink_logits)
        mixed = path.mix(i, q, k, v, encoding, normalise=normalise, trace=inside[i])  # (T, H, D)
        if trace is not None:
            inside[i].update(x=x, q=q, k=k, v=v, mixed=mixed)
        if rows is not None and i == config.n_layers - 1:
            x, mixed = x[rows], mixed[rows]  # only these rows are needed for the logits
        x = x + linear(mixed.reshape(len(x), H * D), layer.wo, layer.bo)
        h = rms_norm(x, layer.mlp_norm, config.norm_eps)
        gated = silu(linear(h, layer.w_gate, layer.b_gate)) * linear(h, layer.w_up, layer.b_up)  # (T, F)
        x = x + linear(gated, layer.w_down, layer.b_down)
    if trace is not None:
        trace.update(layers=inside, x=x)
    return linear(rms_norm(x, weights.norm, config.norm_eps), weights.head)  # (T, C) -> (T, V)


# The shapes of the learned arrays; `hf.arrays` lists them by name -----------------------------------


def layer_shapes(config):
    """Return the shape of every array in `LayerWeights` that a model of this config has."""
    C, F = config.d_model, config.d_ff
    Q, KV = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    shapes: dict = {"attn_norm": (C,), "wq": (C, Q), "wk": (C, KV), "wv": (C, KV), "wo": (Q, C)}
    shapes |= {"mlp_norm": (C,), "w_gate": (C, F), "w_up": (C, F), "w_down": (F, C)}
    if config.qkv_bias:
        shapes |= {"bq": (Q,), "bk": (KV,), "bv": (KV,)}
    if config.o_bias:
        shapes["bo"] = (C,)
    if config.mlp_bias:
        shapes |= {"b_gate": (F,), "b_up": (F,), "b_down": (C,)}
    if config.qk_norm:
        shapes |= {"q_norm": (config.head_dim,), "k_norm": (config.head_dim,)}
    if config.sink_logit:
        shapes["sink_logits"] = (config.n_heads,)
    return shapes


def outer_shapes(config):
    """Return the shapes of the arrays in `Weights` other than the embedding, output matrix and layers."""
    return {"norm": (config.d_model,)}
