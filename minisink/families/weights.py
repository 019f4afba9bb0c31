"""What these families have learned, under GPT-2's names; what a model does not have is None.

Letters: C model width, H heads, K key/value heads, D head width, F MLP width, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class LayerWeights:
    """The learned arrays of one layer."""

    ln1: np.ndarray  # (C,)
    w_qkv: np.ndarray  # (C, (H + 2 K) * D): queries, keys and values side by side
    wo: np.ndarray  # (H * D, C)
    w_up: np.ndarray  # (C, F)
    w_down: np.ndarray  # (F, C)
    ln1_b: np.ndarray | None = None  # (C,)
    b_qkv: np.ndarray | None = None  # ((H + 2 K) * D,)
    bo: np.ndarray | None = None  # (C,)
    ln2: np.ndarray | None = None  # (C,); None where the MLP reads what attention reads
    ln2_b: np.ndarray | None = None  # (C,)
    b_up: np.ndarray | None = None  # (F,)
    b_down: np.ndarray | None = None  # (C,)
    sink_logits: np.ndarray | None = None  # (H,)


@dataclass
class Weights:
    """The learned arrays of the model."""

    embed: np.ndarray  # (V, C)
    layers: list[LayerWeights]
    norm: np.ndarray  # (C,)
    head: np.ndarray  # (C, V)
    norm_b: np.ndarray | None = None  # (C,)
