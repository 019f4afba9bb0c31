"""Loss and gradient of a whole batch, in small pieces.

A batch of 64 samples of 128 tokens needs arrays of many megabytes, which no processor's cache holds. A *piece* of a few
samples does, and the next one uses the same memory; the gradients of the pieces add up to that of the batch. Pieces are
independent, so each core can take one. They are added in order, so the sum has the same bits on any number of cores.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..system.threads import one_thread
from . import passes
from .backward import cross_entropy
from .parameters import as_weights

PIECE = 1024  # tokens per piece: the (N, V) and (B, H, T, T) arrays then fit a cache of a few megabytes


def batch_gradient(config, vector, inputs, targets, *, piece=None, workers=1):  # (P,), 2 x (B, T) -> (P,)
    """Compute the mean loss of a batch in nats per token, and its gradient; `vector` holds the weights.

    A `piece` has that many samples, by default `PIECE` tokens. With `workers`, the matrix library uses one thread.
    """
    B, T = inputs.shape
    weights, scale = as_weights(config, vector), 1.0 / inputs.size
    piece, width = piece or max(1, PIECE // T), config.d_model if workers == 1 else 0

    @one_thread(width)
    def one(start):
        gradient = np.zeros_like(vector)
        rows = slice(start, start + piece)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller checks that the loss is finite
            logits, _, back = passes.forward(inputs[rows], weights, config)
            loss, dlogits = cross_entropy(logits, targets[rows].reshape(-1), scale)
            back(dlogits, as_weights(config, gradient))
        return loss, gradient

    with one_thread(width), ThreadPoolExecutor(workers) as pool:  # or a finished piece raises the thread count
        pieces = (map if workers == 1 else pool.map)(one, range(0, B, piece))
        loss, gradient = next(pieces)
        for more, part in pieces:
            loss = loss + more
            gradient += part
    return float(loss) * scale, gradient


def batch_loss(config, vector, inputs, targets, *, piece=None):
    """Compute the mean loss of a batch as `batch_gradient` does, and how strong the sinks are, without a gradient.

    Their strength is, for each layer, the mean weight on the first token, over heads and over the queries in the second
    half of every sample (early queries see few keys, and look at the first for lack of others).
    """
    (B, T), weights = inputs.shape, as_weights(config, vector)
    piece = piece or max(1, PIECE // T)
    total, sinks = 0.0, [0.0] * config.n_layers
    for start in range(0, B, piece):
        rows = slice(start, start + piece)
        with one_thread(config.d_model):
            logits, layers, _ = passes.forward(inputs[rows], weights, config)
        for i, layer in enumerate(layers):
            on_first = layer["pattern"][:, :, T // 2 :, 0]  # (b, H, T/2)
            sinks[i] += float(on_first.mean()) * len(on_first) / B
        total += float(cross_entropy(logits, targets[rows].reshape(-1), 1.0)[0])
    return total / inputs.size, sinks
