"""The search in a fast store: which blocks each query fetches, whether there are many tokens or just one."""

import numpy as np

from ..attention import additive
from .cache import channel_range, steps_from_last


def fetch(view, q, start, stop, policy, bias=None):  # StoreView, (K, D, G, t), 2 x (t,), (H, t, N, B) or None
    """Return scores (H, t, F) and values (H, t, F, D) of the blocks with the best keys, for each head and query.

    Queries are rotated and divided by sqrt(D), and G of them share a key. Query i may fetch tokens ``start[i]`` to
    ``stop[i]`` of the view. `bias` is added to the scores.
    """
    (K, N, B, D), (_, _, G, t) = view.keys.shape, q.shape
    H = K * G
    head, query = np.arange(H)[:, None, None], np.arange(t)[:, None]
    kv_head, member = head // G, head % G

    def invisible(rows):  # -> (n, B, t): 0 where a query may look, -inf elsewhere
        token = np.arange(rows.start * B, rows.stop * B).reshape(-1, B, 1)
        return additive(np.asarray((token >= start) & (token < stop), like=q), q.dtype)

    if policy.select == "bound":
        bounds = _bounds(view, q, start, stop)
        if bias is not None:
            bounds += (bias + invisible(slice(0, N)).transpose(2, 0, 1)).max(axis=-1)
        top = top_k(bounds, policy.n_blocks)  # (H, t, n)
        queries = q.transpose(0, 2, 3, 1).reshape(H, t, 1, D, 1)
        scores = (view.keys[kv_head, top] @ queries)[..., 0]  # (H, t, n, B, D) @ (H, t, 1, D, 1) -> (H, t, n, B)
        scores += invisible(slice(0, N))[top, :, query]
        if bias is not None:
            scores += bias[head, query, top]
    else:
        queries = np.ascontiguousarray(q.reshape(K, D, G * t), like=q)
        scores = view.keys.reshape(K, N * B, D) @ queries  # (K, N B, D) @ (K, D, G t) -> (K, N B, G t)
        scores = scores.reshape(K, N, B, G, t)
        for edge in (slice(0, int(max(start)) // B + 1), slice(int(min(stop)) // B, N)):  # all between is visible
            scores[:, edge] += invisible(edge)[:, :, None]
        if bias is not None:
            scores += bias.reshape(K, G, t, N, B).transpose(0, 3, 4, 1, 2)
        best = block_max(scores.reshape(K, N, B, G * t)).swapaxes(1, 2).reshape(H, t, N)
        top = top_k(best, policy.n_blocks)  # (H, t, n)
        scores = scores[kv_head, top, :, member, query]  # (H, t, n, B)
    return scores.reshape(H, t, -1), view.values[kv_head, top].reshape(H, t, -1, D)


def _bounds(view, q, start, stop):  # (K, D, G, t), 2 x (t,) -> (H, t, N)
    """Return `cache.upper_bound` of every block; recomputed per query for blocks only partly evicted."""
    (K, N, B, D), (_, _, G, t) = view.keys.shape, q.shape
    positive, negative = np.maximum(q, 0.0), np.minimum(q, 0.0)
    bounds = view.channel_max @ positive.reshape(K, D, G * t) + view.channel_min @ negative.reshape(K, D, G * t)
    bounds = bounds.swapaxes(1, 2).reshape(K * G, t, N)  # (K, N, G t) -> (H, t, N)
    block, query = np.arange(N), np.arange(t)
    visible = (block * B < stop[:, None]) & ((block + 1) * B > start[:, None])  # (t, N)
    bounds += additive(np.asarray(visible, like=q), bounds.dtype)
    for edge in (start // B, (stop - 1) // B):  # blocks, (t,)
        token = edge[:, None] * B + np.arange(B)  # (t, B)
        visible = np.asarray((token >= start[:, None]) & (token < stop[:, None]), like=q)
        channel_min, channel_max = channel_range(view.keys[:, edge], visible[None])  # (K, t, D)
        bound = positive * channel_max.transpose(0, 2, 1)[:, :, None]  # (K, D, G, t)
        bound += negative * channel_min.transpose(0, 2, 1)[:, :, None]
        bounds[:, query, edge] = bound.sum(axis=1).reshape(K * G, t)
    return bounds


def block_max(scores):  # (K, N, B, Q) -> (K, N, Q)
    """Return the best score of each block by halving; three times as fast as ``scores.max(axis=2)``.

    >>> block_max(np.array([3.0, 1.0, 2.0, 0.0, 5.0]).reshape(1, 1, 5, 1)).tolist()
    [[[5.0]]]
    """
    while scores.shape[2] > 1:
        half = scores.shape[2] // 2
        best = np.maximum(scores[:, :, :half], scores[:, :, half : 2 * half])
        if scores.shape[2] % 2:
            best[:, :, 0] = np.maximum(best[:, :, 0], scores[:, :, -1])
        scores = best
    return scores[:, :, 0]


def top_k(block_scores, n_blocks):  # (..., N) -> (..., n)
    """Return the blocks with the highest scores, unordered; ties go to the newer, as in `cache.top_blocks`.

    >>> top_k(np.array([[3.00001, 1.0, 3.0, 2.0]]), 1).tolist()
    [[2]]
    """
    order, n_left = steps_from_last(block_scores, n_blocks)
    order *= 2.0**22
    order += np.arange(block_scores.shape[-1], like=block_scores)  # integers below 2**53, all different
    return np.argpartition(order, n_left, axis=-1)[..., n_left:]
