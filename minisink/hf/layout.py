"""The memory layout of a model's arrays: in the order in which decoding reads them for each token.

A file holds one matrix after another, most of them as (out, in). Here all of them are in one vector, as (in, out), row
by row; matrices that multiply the same vector are side by side, each a view of some columns, so `fast.fused` can use
them as one. A tied embedding is stored as the output matrix, which is read whole for every token. A single allocation
gets huge pages from the system, which are faster to read, and leaves no fragmentation.
"""

import math

import numpy as np

from .arrays import shapes as array_shapes

# Which array each of these is stored beside, since both multiply the same vector; GPT-2's are already joined
BESIDE = {"wk": "wq", "wv": "wq", "w_up": "w_gate"}


def lay_out(config, arrays, like):
    """Copy a model's arrays into a layout that is fast to read, with the dtype and device of `like`; return a dict.

    `arrays` yields (name, array) in any order; if it reads them lazily, at most two exist besides the copies.
    """
    n_numbers = sum(math.prod(shape) for shape in array_shapes(config).values())
    return fill(config, arrays, np.empty_like(like, shape=n_numbers))


def fill(config, arrays, vector):
    """Copy the arrays of a model into a vector of its size; return the views by name."""
    places = cut(config, vector)
    for name, array in arrays:
        places[name][...] = np.asarray(array, vector.dtype, like=vector)
    return places


def cut(config, vector):
    """Cut the vector of a model into its arrays: views by name.

    >>> from minisink.llama import Config
    >>> config = Config(d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=4, d_ff=9, vocab_size=5, tied=True)
    >>> arrays = cut(config, np.empty(472, np.float32))
    >>> [(name, arrays[name].shape, arrays[name].strides) for name in ("embed", "0.wq", "0.wk", "0.wo")]
    [('embed', (5, 8), (4, 20)), ('0.wq', (8, 8), (64, 4)), ('0.wk', (8, 4), (64, 4)), ('0.wo', (8, 8), (32, 4))]
    """
    shapes = array_shapes(config)
    if config.tied:
        shapes["embed"] = shapes["embed"][::-1]  # (V, C) -> (C, V)
    groups: dict = {}
    for name in sorted(shapes, key=lambda name: -len(shapes[name])):  # the matrices, then the vectors
        layer, dot, field = name.rpartition(".")
        groups.setdefault(layer + dot + BESIDE.get(field, field), []).append(name)
    start, places = 0, {}
    for names in groups.values():
        cuts = np.cumsum([shapes[name][-1] for name in names]).tolist()
        rows = shapes[names[0]][:-1]
        part = vector[start : start + math.prod(rows) * cuts[-1]].reshape(*rows, cuts[-1])
        places.update(zip(names, np.split(part, cuts[:-1], axis=-1), strict=True))
        start += part.size
    if config.tied:
        places["embed"] = places["embed"].T
    return places
