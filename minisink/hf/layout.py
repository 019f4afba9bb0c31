"""How the arrays of a model lie in memory: as decoding reads them, token after token.

A file holds one matrix after the other, most of them as (out, in). Here all lie in one vector, as (in, out), row by
row; matrices that meet the same vector lie side by side, so that each is a view of some columns, and `fast.fused` takes
them as one. A tied embedding is stored as the output matrix, which is read whole for every token. To `Model.forward`,
which takes many tokens at once, it is all the same.

One allocation gets huge pages from the system, from which a product reads faster, and leaves no fragmentation.
"""

import numpy as np

from .arrays import shapes as array_shapes

# Which array of a layer one lies beside, since they meet the same vector; GPT-2's come joined
BESIDE = {"wk": "wq", "wv": "wq", "w_up": "w_gate"}


def lay_out(config, arrays, like):
    """Copy the arrays of a model to where they are read fast, in dtype and device those of `like`: a dict by name.

    `arrays` yields (name, array) in any order. If they are read as they are taken, never more than two lie beside the
    copies.
    """
    n_numbers = sum(a * b for group in side_by_side(config) for a, b in group.values())
    places = matrices(config, np.empty_like(like, shape=n_numbers))
    for name, array in arrays:
        array = np.asarray(array, like.dtype, like=like)
        if name in places:
            places[name][...] = array
        else:
            places[name] = array
    return places


def side_by_side(config):
    """List the matrices in the order of memory, those with the same rows together: a dict of name to (in, out) each."""
    groups: dict = {}
    for name, shape in array_shapes(config).items():
        if len(shape) == 2:
            layer, dot, field = name.rpartition(".")
            shape = shape[::-1] if config.tied and name == "embed" else shape  # (V, C) -> (C, V)
            groups.setdefault(layer + dot + BESIDE.get(field, field), {})[name] = shape
    return list(groups.values())


def matrices(config, vector):
    """Cut the vector in which all matrices of a model lie: a dict by name.

    >>> from minisink.llama import Config
    >>> config = Config(d_model=8, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=4, d_ff=9, vocab_size=5, tied=True)
    >>> arrays = matrices(config, np.empty(448, np.float32))
    >>> [(name, arrays[name].shape, arrays[name].strides) for name in ("embed", "0.wq", "0.wk", "0.wo")]
    [('embed', (5, 8), (4, 20)), ('0.wq', (8, 8), (64, 4)), ('0.wk', (8, 4), (64, 4)), ('0.wo', (8, 8), (32, 4))]
    """
    start, places = 0, {}
    for shapes in side_by_side(config):
        cuts = np.cumsum([n_columns for _, n_columns in shapes.values()]).tolist()
        n_rows = next(iter(shapes.values()))[0]
        matrix = vector[start : start + n_rows * cuts[-1]].reshape(n_rows, cuts[-1])
        places.update(zip(shapes, np.split(matrix, cuts[:-1], axis=1), strict=True))
        start += matrix.size
    if config.tied:
        places["embed"] = places["embed"].T
    return places
