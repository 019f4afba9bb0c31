"""Every equation once more, as literal float64 loops: slow, plain, and sharing nothing with what is tested."""

import math

import numpy as np


def dot(a, b):
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += float(x) * float(y)
    return total


# One row at a time -------------------------------------------------------------------------------


def softmax(row, extra=0.0):
    """exp(x_i) / (extra + sum_j exp(x_j)), each exponential taken after dividing by the largest."""
    largest = max(max(row), -math.inf if extra == 0.0 else math.log(extra))
    if largest == -math.inf:
        return [0.0 for _ in row]
    total = (0.0 if extra == 0.0 else math.exp(math.log(extra) - largest)) + sum(math.exp(x - largest) for x in row)
    return [math.exp(x - largest) / total for x in row]


def log_softmax(row):
    largest = max(row)
    total = math.log(sum(math.exp(x - largest) for x in row))
    return [x - largest - total for x in row]


def rms_norm(row, weight, eps):
    root = math.sqrt(sum(float(x) ** 2 for x in row) / len(row) + eps)
    return np.array([w * x / root for w, x in zip(weight, row, strict=True)])


def layer_norm(row, weight, bias, eps):
    mean = sum(float(x) for x in row) / len(row)
    root = math.sqrt(sum((float(x) - mean) ** 2 for x in row) / len(row) + eps)
    return np.array([w * (x - mean) / root + b for w, x, b in zip(weight, row, bias, strict=True)])


def silu(x):
    return x / (1.0 + math.exp(-x)) if x > -700 else 0.0


def gelu(x):
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def linear(row, w, b=None):
    out = [dot(row, w[:, f]) for f in range(w.shape[1])]
    return np.array(out) if b is None else np.array([x + y for x, y in zip(out, b, strict=True)])


# Rotary positions --------------------------------------------------------------------------------


def frequencies(head_dim, theta, scaling=None):
    out = []
    for pair in range(head_dim // 2):
        turn = 1.0 / theta ** (2.0 * pair / head_dim)
        if scaling and scaling["rope_type"] == "linear":
            turn = turn / scaling["factor"]
        if scaling and scaling["rope_type"] == "llama3":
            turn = _llama3(turn, **scaling)
        out.append(turn)
    return out


def _llama3(turn, factor, low_freq_factor, high_freq_factor, original_max_position_embeddings, rope_type):
    """Case by case in wavelengths, as Meta's release has it."""
    wavelength = 2.0 * math.pi / turn
    if wavelength < original_max_position_embeddings / high_freq_factor:
        return turn
    if wavelength > original_max_position_embeddings / low_freq_factor:
        return turn / factor
    smooth = original_max_position_embeddings / wavelength - low_freq_factor
    smooth /= high_freq_factor - low_freq_factor
    return (1.0 - smooth) * turn / factor + smooth * turn


def rotate(vector, position, turns):
    """Channel j with channel j + D/2."""
    half = len(vector) // 2
    out = np.zeros(len(vector))
    for j in range(half):
        cos, sin = math.cos(position * turns[j]), math.sin(position * turns[j])
        out[j] = vector[j] * cos - vector[j + half] * sin
        out[j + half] = vector[j + half] * cos + vector[j] * sin
    return out


def rotate_interleaved(vector, position, turns):
    """Channel 2j with channel 2j + 1."""
    out = np.zeros(len(vector))
    for j in range(len(vector) // 2):
        cos, sin = math.cos(position * turns[j]), math.sin(position * turns[j])
        out[2 * j] = vector[2 * j] * cos - vector[2 * j + 1] * sin
        out[2 * j + 1] = vector[2 * j + 1] * cos + vector[2 * j] * sin
    return out


# Attention ---------------------------------------------------------------------------------------


def visible(n_queries, n_keys, window):
    """The last queries of a text: each sees itself and the window - 1 before it."""
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
            group = head // (H // K)
            scores = [dot(q[t, head], keys[s, group]) / math.sqrt(D) if mask[t, s] else -math.inf for s in range(S)]
            pattern[head, t] = softmax(scores, 0.0 if sinks is None else math.exp(sinks[head]))
            for s in range(S):
                for d in range(D):
                    mixed[t, head, d] += pattern[head, t, s] * values[s, group, d]
    return mixed, pattern


def shifting_scores(q, k, n_sinks, window, turns, dtype=np.float64):
    """Keys are stored rotated; each eviction turns those behind the gap by -1. Scores (H, S) of the last query."""
    keys = np.zeros((0, *k.shape[1:]), dtype)
    for t in range(len(q)):
        slot = min(len(keys), n_sinks + window - 1)
        if slot < len(keys):  # full: the oldest that is not a sink leaves, and the rest moves up by one
            moved = turned(keys[n_sinks + 1 :], -1, turns).astype(dtype)
            keys = np.concatenate((keys[:n_sinks], moved))
        keys = np.concatenate((keys, turned(k[t : t + 1], slot, turns).astype(dtype)))
    queries = turned(q[-1:], len(keys) - 1, turns)[0]  # (H, D)
    groups = q.shape[1] // k.shape[1]
    scores = [[dot(queries[h], key[h // groups]) / math.sqrt(q.shape[2]) for key in keys] for h in range(q.shape[1])]
    return np.array(scores)


def turned(x, position, turns):
    """`rotate` for every vector of (S, K, D) at once."""
    a, b = np.split(x.astype(float), 2, axis=-1)
    cos, sin = np.cos(position * np.array(turns)), np.sin(position * np.array(turns))
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), axis=-1)


# Whole models, one token and one layer at a time -------------------------------------------------


def evict(n_sinks, window):
    """StreamingLLM, section 3.2: when the cache holds too much, the oldest token that is not a sink leaves."""

    def apply(kept):
        if len(kept) > n_sinks + window:
            del kept[n_sinks]

    return apply


def nothing(kept):
    """Dense attention."""


def decode(ids, weights, config, before=nothing, after=nothing, positions="slot", capacity=None):
    """Logits (T, V). Each layer keeps a list of (token_index, un-rotated key, value).

    `before` evicts between taking in a token and attending, `after` once it has attended (the authors' order).
    GPT-2 embeds a token at ``min(t, capacity - 1)`` with positions="slot".
    """
    books = [[] for _ in weights.layers]
    logits = []
    for t, token in enumerate(ids):
        x = weights.embed[token]
        if config.model_type == "gpt2":
            place = t if positions == "original" or capacity is None else min(t, capacity - 1)
            x = x + weights.position[place]
        for layer, kept in zip(weights.layers, books, strict=True):
            q, k, v = _project(x, layer, config)
            kept.append((t, k, v))
            before(kept)
            places = [index for index, _, _ in kept] if positions == "original" else range(len(kept))
            mixed = _one_query(q, kept, list(places), layer, config)
            after(kept)
            x = _finish(x, mixed, layer, config)
        if config.model_type == "gpt2":
            x = layer_norm(x, weights.norm, weights.norm_b, config.norm_eps)
        else:
            x = rms_norm(x, weights.norm, config.norm_eps)
        logits.append(x @ weights.head)
    return np.array(logits)


def recompute(ids, weights, config, window):
    """Logits (T, V): for every token, its last `window` tokens read afresh from position 0."""
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
        turns = frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        q = np.array([rotate(head, places[-1], turns) for head in q])
        keys = [[rotate(head, place, turns) for head in key] for key, place in zip(keys, places, strict=True)]
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
