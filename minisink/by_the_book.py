"""The whole of minisink by the book: lists and loops, one number at a time, and nothing clever.

This is the specification. It is slow, it runs, and the tests hold every faster file to it. Five steps:

1. a row of numbers to another row         `softmax`, `rms_norm`, `linear`, ...
2. a position for a query or a key         `frequencies`, `rotate`
3. one query against the keys it may see   `attend`
4. StreamingLLM                            `evict`, `decode`
5. what comes of it                        `losses`, `write`

The cache of a layer is a list of (token_index, key, value). A new token is appended; when there are too many, the
oldest that is not a sink is deleted; and a token's place in the list, not in the text, is its position. That is all of
StreamingLLM (Xiao et al., arXiv:2309.17453, section 3.2). With two sinks and a window of three:

>>> kept, leave = [], evict(n_sinks=2, window=3)
>>> for token_index in range(7):
...     kept.append(token_index)
...     leave(kept)
>>> kept
[0, 1, 4, 5, 6]

Shapes: T tokens, S keys, H query heads, K key/value heads, D head width, C model width, F MLP width, V vocabulary.
Weights and configs are those of `llama` and `gpt2`, read one array at a time.
"""

import math

import numpy as np

# 1. A row of numbers to another row -----------------------------------------------------------------


def dot(a, b):
    """``a_1 b_1 + ... + a_n b_n``."""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += float(x) * float(y)
    return total


def softmax(row, extra=0.0):
    """``exp(x_i) / (extra + sum_j exp(x_j))``: weights that must be spent, but for what `extra` takes.

    >>> softmax([0.0, 0.0]), softmax([0.0, 0.0], extra=2.0)
    ([0.5, 0.5], [0.25, 0.25])
    """
    largest = max(max(row), -math.inf if extra == 0.0 else math.log(extra))  # taken off first: no exp overflows
    if largest == -math.inf:
        return [0.0 for _ in row]  # every key is masked
    total = 0.0 if extra == 0.0 else math.exp(math.log(extra) - largest)
    for x in row:
        total += math.exp(x - largest)
    return [math.exp(x - largest) / total for x in row]


def log_softmax(row):
    """``x_i - log sum_j exp(x_j)``, in nats."""
    largest = max(row)
    total = math.log(sum(math.exp(x - largest) for x in row))
    return [x - largest - total for x in row]


def rms_norm(row, weight, eps):
    """``w_i x_i / sqrt(mean(x^2) + eps)``."""
    root = math.sqrt(sum(float(x) ** 2 for x in row) / len(row) + eps)
    return np.array([w * x / root for w, x in zip(weight, row, strict=True)])


def layer_norm(row, weight, bias, eps):
    """``w_i (x_i - mean) / sqrt(variance + eps) + b_i``."""
    mean = sum(float(x) for x in row) / len(row)
    root = math.sqrt(sum((float(x) - mean) ** 2 for x in row) / len(row) + eps)
    return np.array([w * (x - mean) / root + b for w, x, b in zip(weight, row, bias, strict=True)])


def silu(x):
    """``x sigmoid(x)``."""
    return x / (1.0 + math.exp(-x)) if x > -700 else 0.0


def gelu(x):
    """The tanh approximation of GPT-2."""
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def linear(row, w, b=None):  # (C,), (C, F), (F,) -> (F,)
    """``x w + b``, column by column."""
    out = [dot(row, w[:, f]) for f in range(w.shape[1])]
    return np.array(out) if b is None else np.array([x + y for x, y in zip(out, b, strict=True)])


# 2. A position for a query or a key -----------------------------------------------------------------


def frequencies(head_dim, theta, scaling=None):
    """Radians a position of each pair of channels: ``theta^(-2 j / D)``, changed by a scaling rule if there is one."""
    out = []
    for pair in range(head_dim // 2):
        rate = 1.0 / theta ** (2.0 * pair / head_dim)
        if scaling and scaling["rope_type"] == "linear":
            rate = rate / scaling["factor"]
        if scaling and scaling["rope_type"] == "llama3":
            rate = _llama3(rate, **scaling)
        out.append(rate)
    return out


def _llama3(rate, factor, low_freq_factor, high_freq_factor, original_max_position_embeddings, rope_type):
    """Case by case in wavelengths, as Meta's release has it."""
    wavelength = 2.0 * math.pi / rate
    if wavelength < original_max_position_embeddings / high_freq_factor:
        return rate
    if wavelength > original_max_position_embeddings / low_freq_factor:
        return rate / factor
    smooth = original_max_position_embeddings / wavelength - low_freq_factor
    smooth /= high_freq_factor - low_freq_factor
    return (1.0 - smooth) * rate / factor + smooth * rate


def rotate(vector, position, rates):  # (D,) -> (D,)
    """Rotate channel j with channel j + D/2 by ``position rates[j]``."""
    half = len(vector) // 2
    out = np.zeros(len(vector))
    for j in range(half):
        cos, sin = math.cos(position * rates[j]), math.sin(position * rates[j])
        out[j] = vector[j] * cos - vector[j + half] * sin
        out[j + half] = vector[j + half] * cos + vector[j] * sin
    return out


# 3. One query against the keys it may see -----------------------------------------------------------


def visible(n_queries, n_keys, window):
    """The last queries of a text, (T, S): each sees itself and the window - 1 before it."""
    mask = np.zeros((n_queries, n_keys), bool)
    for t in range(n_queries):
        own = n_keys - n_queries + t
        for s in range(n_keys):
            mask[t, s] = own - window < s <= own
    return mask


def attend(q, keys, values, mask, sinks=None):
    """Mixed values (T, H, D) and pattern (H, T, S); `sinks` holds a logit a head, or None."""
    (T, H, D), (S, K, _) = q.shape, keys.shape
    mixed, pattern = np.zeros((T, H, D)), np.zeros((H, T, S))
    for t in range(T):
        for head in range(H):
            group = head // (H // K)  # the key/value head that this query head shares with its neighbours
            scores = [dot(q[t, head], keys[s, group]) / math.sqrt(D) if mask[t, s] else -math.inf for s in range(S)]
            pattern[head, t] = softmax(scores, 0.0 if sinks is None else math.exp(sinks[head]))
            for s in range(S):
                for d in range(D):
                    mixed[t, head, d] += pattern[head, t, s] * values[s, group, d]
    return mixed, pattern


# 4. StreamingLLM: whole models, one token and one layer at a time -----------------------------------


def evict(n_sinks, window):
    """When the cache holds too much, the oldest token that is not a sink leaves."""

    def leave(kept):
        if len(kept) > n_sinks + window:
            del kept[n_sinks]

    return leave


def nothing(kept):
    """Dense attention: nobody leaves."""


def decode(ids, weights, config, before=nothing, after=nothing, positions="slot", capacity=None):
    """Logits (T, V) after each token.

    `before` evicts between taking in a token and attending, as minisink does; `after` once it has attended, as the
    authors' code does. With ``positions="original"`` tokens keep the place they have in the text. GPT-2 embeds a token
    at ``min(t, capacity - 1)``.
    """
    caches = [[] for _ in weights.layers]
    logits = []
    for t, token in enumerate(ids):
        x = weights.embed[token]  # (C,)
        if config.model_type == "gpt2":
            place = t if positions == "original" or capacity is None else min(t, capacity - 1)
            x = x + weights.position[place]
        for layer, kept in zip(weights.layers, caches, strict=True):
            q, k, v = _project(x, layer, config)
            kept.append((t, k, v))  # keys are kept un-rotated
            before(kept)
            places = [index for index, _, _ in kept] if positions == "original" else range(len(kept))
            mixed = _one_query(q, kept, list(places), layer, config)
            after(kept)
            x = _finish(x, mixed, layer, config)
        if config.model_type == "gpt2":
            x = layer_norm(x, weights.norm, weights.norm_b, config.norm_eps)
        else:
            x = rms_norm(x, weights.norm, config.norm_eps)
        logits.append(x @ weights.head)  # (C,) -> (V,)
    return np.array(logits)


def recompute(ids, weights, config, window):
    """Logits (T, V) by sliding window with re-computation: for every token, its last `window` read afresh from 0."""
    rows = [decode(ids[max(0, t + 1 - window) : t + 1], weights, config)[-1] for t in range(len(ids))]
    return np.array(rows)


def _plus(x, b):
    return x if b is None else x + b


def _project(x, layer, config):
    """q (H, D), k and v (K, D) of one token."""
    H, K, D = config.n_heads, config.n_kv_heads, config.head_dim
    if config.model_type == "gpt2":
        h = layer_norm(x, layer.ln1, layer.ln1_b, config.norm_eps)
        q, k, v = np.split(h @ layer.w_qkv + layer.b_qkv, 3)
    else:
        h = rms_norm(x, layer.attn_norm, config.norm_eps)
        q, k, v = _plus(h @ layer.wq, layer.bq), _plus(h @ layer.wk, layer.bk), _plus(h @ layer.wv, layer.bv)
    return q.reshape(H, D), k.reshape(K, D), v.reshape(K, D)


def _one_query(q, kept, places, layer, config):
    """Mixed values (H * D,) of the newest token, whose place is the last."""
    keys, values = [k for _, k, _ in kept], np.array([v for _, _, v in kept])
    if config.model_type != "gpt2":
        rates = frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        q = np.array([rotate(head, places[-1], rates) for head in q])
        keys = [[rotate(head, place, rates) for head in key] for key, place in zip(keys, places, strict=True)]
    sinks = [0.0] * config.n_heads if config.softmax == "softmax1" else layer.sink_logits
    mixed, _ = attend(q[None], np.array(keys), values, np.ones((1, len(keys)), bool), sinks)
    return mixed.reshape(-1)


def _finish(x, mixed, layer, config):
    """The residual stream after attention's output map and the MLP."""
    x = _plus(x + mixed @ layer.wo, layer.bo)
    if config.model_type == "gpt2":
        h = layer_norm(x, layer.ln2, layer.ln2_b, config.norm_eps)
        inner = np.array([gelu(u) for u in h @ layer.w_up + layer.b_up])
    else:
        h = rms_norm(x, layer.mlp_norm, config.norm_eps)
        gate = np.array([silu(g) for g in _plus(h @ layer.w_gate, layer.b_gate)])
        inner = gate * _plus(h @ layer.w_up, layer.b_up)
    return _plus(x + inner @ layer.w_down, layer.b_down)


# 5. What comes of it --------------------------------------------------------------------------------


def losses(logits, ids):
    """Nats a token: ``-log softmax(logits)`` of the token that follows, for all but the first."""
    return np.array([-log_softmax(row)[token] for row, token in zip(logits[:-1], ids[1:], strict=True)])


def write(ids, n_new, weights, config, before=nothing, capacity=None):
    """Go on with a text: take the likeliest token, put it behind the others, and begin again."""
    ids = list(ids)
    for _ in range(n_new):
        scores = decode(ids, weights, config, before, capacity=capacity)[-1].tolist()
        ids.append(scores.index(max(scores)))
    return ids
