"""How strong a sink is, read off an attention pattern or off the vectors of a layer.

Softmax weights sum to one (`ops.softmax`), so a head that looks for nothing must still put its weight somewhere. It
learns to put it on a token that every query can see and that has little to give: the first one. Such a token is an
*attention sink*, and three signs give it away:

- many heads put much of their weight on it, whatever the word: `weight_on_first`, `sink_rate`;
- its values are small, so that looking at it changes little: `ratio_to_median`, `sink_kind`, `stable_rank`;
- its residual stream is far larger than that of any other token: `ratio_to_median` again.

(Xiao et al., arXiv:2309.17453, section 3.1; Gu et al., arXiv:2410.10781; Sun et al., arXiv:2402.17762; Guo et al.,
arXiv:2410.13835.) Where the weights need not sum to one, no sink forms: `ops.softmax1`, ``minisink train backcopy``.
`experiments.inside` measures these signs in a whole model.
"""

import numpy as np

from .system.device import to_host


def importance(pattern):  # (H, T, T) causal -> (H, T)
    """``alpha_k = mean over queries i >= k of pattern[i, k]``: how much weight each key gets (Gu et al., section 3.2).

    >>> importance(np.array([[[1.0, 0.0], [0.5, 0.5]]])).tolist()
    [[0.75, 0.5]]
    """
    T = pattern.shape[-1]
    return to_host(pattern).sum(axis=1) / np.arange(T, 0, -1)  # key k is seen by T - k queries


def sink_rate(patterns, *, key=0, eps=0.3):  # a list of (H, T, T), one per layer -> float
    """Share of heads, over all layers, with ``alpha_key > eps`` (Gu et al., section 3.2: T = 64, mean of 100 texts).

    >>> sink_rate([np.array([[[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]])], key=1, eps=0.6)
    0.5
    """
    return float(np.mean([importance(pattern)[:, key] > eps for pattern in patterns]))


def weight_on_first(pattern, n_first=1):  # (H, T, T) causal -> (H,)
    """Return the mean weight that later queries put on the first tokens; ValueError if there are none.

    >>> weight_on_first(np.array([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.25, 0.25]]])).tolist()
    [0.5]
    """
    if not 1 <= n_first < pattern.shape[-1]:
        asked = f"weight on the first {n_first} of {pattern.shape[-1]} tokens"
        raise ValueError(f"{asked}: choose 1 or more, and fewer than all")
    return to_host(pattern)[:, n_first:, :n_first].sum(axis=-1).mean(axis=-1)


def ratio_to_median(norm, key=0):  # (..., T) -> (...)
    """``norm[key] / median of norm[i != key]``: how long a token's vector is, compared with the others.

    >>> ratio_to_median(np.array([[6.0, 1.0, 2.0, 3.0]])).tolist()
    [3.0]
    """
    return norm[..., key] / np.median(np.delete(norm, key, axis=-1), axis=-1)


def sink_kind(ratio):
    """Name the kind of sink by the length of its values, a `ratio_to_median` (arXiv:2606.08105).

    >>> [sink_kind(ratio) for ratio in (0.1, 0.5, 1.1, 3.0)]
    ['no-op', 'between', 'broadcast', 'between']
    """
    if ratio < 0.2:
        return "no-op"  # the head reads next to nothing: it is off
    return "broadcast" if 0.8 <= ratio <= 1.25 else "between"  # every query reads the same


def stable_rank(mixed):  # (T, H, D) -> (H,)
    """``|A|_F^2 / |A|_2^2``: how many directions a head's output A (T, D) has, from 1 to its rank; 0 for zeros.

    >>> stable_rank(np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]])).tolist()
    [2.0]
    """
    squares = np.linalg.svd(to_host(mixed).swapaxes(0, 1), compute_uv=False) ** 2  # (H, min(T, D)), the largest first
    largest = squares[:, 0]
    return np.divide(squares.sum(axis=-1), largest, out=np.zeros_like(largest), where=largest > 0)
