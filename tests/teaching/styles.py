"""Right solutions in other styles than the reference's: lists and math; float32 and heads; a ring and a generator; and
the template's loops to the letter, its own functions called as they are called there."""

LISTS = """
import math

def softmax(x):
    top = max(x)
    e = [math.exp(a - top) for a in x]
    return [a / sum(e) for a in e]

def softmax1(x):
    return softmax(list(x) + [0.0])[:-1]

def dot(a, b):
    return sum(p * r for p, r in zip(a, b))

def attend(q, k, v, visible):
    out = []
    for t in range(len(q)):
        seen = [s for s in range(len(k)) if visible[t][s]]
        w = softmax([dot(q[t], k[s]) / math.sqrt(len(q[t])) for s in seen])
        out.append([sum(w[i] * v[s][d] for i, s in enumerate(seen)) for d in range(len(v[0]))])
    return out

def rotate(x, positions, theta):
    out = []
    for row, p in zip(x, positions):
        h = len(row) // 2
        angle = [p * theta ** (-2 * j / len(row)) for j in range(h)]
        first = [row[j] * math.cos(angle[j]) - row[j + h] * math.sin(angle[j]) for j in range(h)]
        out.append(first + [row[j + h] * math.cos(angle[j]) + row[j] * math.sin(angle[j]) for j in range(h)])
    return out

def survivors(n_slots, n_sinks, window):
    slots = list(range(n_slots))
    while len(slots) > n_sinks + window:
        del slots[n_sinks]
    return slots

def positions_of(token_index, n_sinks, window):
    return [place for place, _ in enumerate(token_index)]

def step(state, q, k, v, n_sinks, window, theta):
    cache = (state or []) + [(k, v)]
    if len(cache) > n_sinks + window:
        cache = cache[:n_sinks] + cache[n_sinks + 1:]
    n = len(cache)
    keys = rotate([key for key, _ in cache], list(range(n)), theta)
    return attend(rotate([q], [n - 1], theta), keys, [value for _, value in cache], [[True] * n])[0], cache

def token_nll(logits, ids):
    return [max(row) + math.log(sum(math.exp(a - max(row)) for a in row)) - row[i] for row, i in zip(logits, ids[1:])]

def retrieve(q, keys, block, k, window, theta):
    far = [dot(rotate([q], [window], theta)[0], key) for key in keys]
    blocks = [list(range(i, min(i + block, len(keys)))) for i in range(0, len(keys), block)]
    best = sorted(blocks, key=lambda members: -max(far[i] for i in members))[:k]
    return [i for members in best for i in members]      # the keys of the blocks
"""

FLOAT32_HEADS = """
import numpy as np
F = np.float32

def softmax(x):
    x = np.asarray(x, F)
    w = np.exp(x - x.max(-1, keepdims=True))
    return w / w.sum(-1, keepdims=True)

def softmax1(x):
    x = np.asarray(x, F)
    top = np.maximum(x.max(-1, keepdims=True), F(0))
    w = np.exp(x - top)
    return w / (np.exp(-top) + w.sum(-1, keepdims=True))

def attend(q, k, v, visible):                                     # (T, H, D), (S, K, D)
    q, k, v = (np.asarray(a, F) for a in (q, k, v))
    (T, H, D), (S, K, _) = q.shape, k.shape
    k, v = np.repeat(k, H // K, axis=1), np.repeat(v, H // K, axis=1)
    scores = np.einsum("thd,shd->hts", q, k) / F(np.sqrt(D))
    scores = np.where(visible, scores, -np.inf)
    return np.einsum("hts,shd->thd", softmax(scores), v)

def rotate(x, positions, theta):                                  # (T, H, D)
    x = np.asarray(x, F)
    T, H, D = x.shape
    angle = np.outer(positions, theta ** (-np.arange(0, D, 2) / D))[:, None]
    z = (x[..., : D // 2] + 1j * x[..., D // 2 :]) * np.exp(1j * angle)
    return np.concatenate((z.real, z.imag), -1).astype(F)

def survivors(n_slots, n_sinks, window):
    slots = np.arange(n_slots)
    return (slots < n_sinks) | (slots >= n_slots - window)        # a mask

def positions_of(token_index, n_sinks, window):
    t = np.asarray(token_index)
    evicted = max(0, t[-1] + 1 - n_sinks - window)
    return np.where(t < n_sinks, t, t - evicted).astype(F)

def step(state, q, k, v, n_sinks, window, theta):                 # (H, D)
    keys, values = state if state is not None else (np.zeros((0, *np.shape(k)), F), np.zeros((0, *np.shape(v)), F))
    keys, values = np.concatenate((keys, np.asarray(k, F)[None])), np.concatenate((values, np.asarray(v, F)[None]))
    keep = survivors(len(keys), n_sinks, window)
    keys, values = keys[keep], values[keep]
    n = len(keys)
    out = attend(rotate(q[None], [n - 1], theta), rotate(keys, np.arange(n), theta), values, np.ones((1, n), bool))
    return out[0], (keys, values)

def token_nll(logits, ids):
    x = np.asarray(logits, F)[:-1]
    top = x.max(-1)
    return top + np.log(np.exp(x - top[:, None]).sum(-1)) - np.take_along_axis(x, np.asarray(ids)[1:, None], -1)[:, 0]

def retrieve(q, keys, block, k, window, theta):
    far = np.asarray(keys, F) @ rotate(np.asarray(q, F)[None, None], [window], theta)[0, 0]
    far = np.pad(far, (0, -len(far) % block), constant_values=-np.inf).reshape(-1, block).max(1)
    return np.argsort(-far)[:k]
"""

A_RING = '''
import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

def softmax(x):
    x = np.array(x, dtype=float)
    return np.exp(x - np.logaddexp.reduce(x))

def softmax1(x):
    x = np.array(x, dtype=float)
    return np.exp(x - np.logaddexp.reduce(np.append(x, 0.0)))

def attend(q, k, v, visible):
    return np.array([softmax(np.where(m, k @ row / math.sqrt(len(row)), -np.inf)) @ v for row, m in zip(q, visible)])

def matrix(p, D, theta):
    R, h = np.zeros((D, D)), D // 2
    for j in range(h):
        c, s = math.cos(p * theta ** (-j / h)), math.sin(p * theta ** (-j / h))
        R[j, j], R[j, j + h], R[j + h, j], R[j + h, j + h] = c, -s, s, c
    return R

def rotate(x, positions, theta):
    return np.stack([matrix(p, len(row), theta) @ row for p, row in zip(positions, x)])

def survivors(n_slots, n_sinks, window):
    return sorted({*range(min(n_sinks, n_slots)), *range(max(0, n_slots - window), n_slots)})

def positions_of(token_index, n_sinks, window):
    return range(len(token_index))

@dataclass
class Ring:
    sinks: list = field(default_factory=list)
    recent: deque = None
    seen: int = 0

def step(state, q, k, v, n_sinks, window, theta):
    """Keys rotated once, to their own index; only the query moves."""
    ring = state or Ring(recent=deque(maxlen=window))
    D, t = len(q), ring.seen
    (ring.sinks if t < n_sinks else ring.recent).append((matrix(t, D, theta) @ k, v))
    ring.seen += 1
    slot = len(ring.sinks) + len(ring.recent) - 1
    far, near = matrix(slot, D, theta) @ q, matrix(t, D, theta) @ q
    scores = [key @ far for key, _ in ring.sinks] + [key @ near for key, _ in ring.recent]
    weights = softmax(np.array(scores) / D ** 0.5)
    return sum(w * value for w, (_, value) in zip(weights, ring.sinks + list(ring.recent))), ring

def token_nll(logits, ids):
    for t in range(len(ids) - 1):
        yield np.logaddexp.reduce(logits[t]) - logits[t][ids[t + 1]]

def retrieve(q, keys, block, k, window, theta):
    query = matrix(window, len(q), theta) @ q
    worth = {}
    for i, key in enumerate(keys):
        worth[i // block] = max(worth.get(i // block, -math.inf), float(key @ query))
    return sorted(worth, key=worth.get)[-k:]
'''

TO_THE_LETTER = """
import numpy as np

def softmax(x):
    x = np.asarray(x, float)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)

def softmax1(x):
    return softmax(np.append(x, 0.0))[:-1]

def attend(q, k, v, visible):
    q, k, v, visible = (np.array(x) for x in (q, k, v, visible))
    return softmax(np.where(visible, q @ k.T / np.sqrt(q.shape[1]), -np.inf)) @ v

def rotate(x, positions, theta):
    x, (T, D) = np.array(x), np.shape(x)
    out = np.empty((T, D))
    for t in range(T):
        for j in range(D // 2):
            angle = positions[t] * theta ** (-2 * j / D)
            a, b = x[t][j], x[t][j + D // 2]
            out[t][j] = a * np.cos(angle) - b * np.sin(angle)
            out[t][j + D // 2] = b * np.cos(angle) + a * np.sin(angle)
    return out

def survivors(n_slots, n_sinks, window):
    return {slot for slot in range(n_slots) if slot < n_sinks or slot >= n_slots - window}

def positions_of(token_index, n_sinks, window):
    return [slot for slot in range(len(token_index))]

def step(state, q, k, v, n_sinks, window, theta):
    held = [*(state or []), (k, v)]
    held = [held[slot] for slot in sorted(survivors(len(held), n_sinks, window))]
    S = len(held)
    keys = rotate([k for k, v in held], [*range(S)], theta)
    query = rotate([q], [S - 1], theta)
    out = attend(query, keys, [v for k, v in held], [[True] * S])[0]
    return out, held

def token_nll(logits, ids):
    T, largest = len(ids), logits.max(axis=1)
    return [largest[t] + np.log(sum(np.exp(logits[t] - largest[t]))) - logits[t][ids[t + 1]] for t in range(T - 1)]

def retrieve(q, keys, block, k, window, theta):
    query = rotate([q], [window], theta)[0]
    worth = [max(query @ key for key in keys[start : start + block]) for start in range(0, len(keys), block)]
    return set(sorted(range(len(worth)), key=lambda b: -worth[b])[:k])
"""

STYLES = {"lists": LISTS, "float32 and heads": FLOAT32_HEADS, "a ring": A_RING, "to the letter": TO_THE_LETTER}
