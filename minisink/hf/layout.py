"""How the arrays of a model lie in memory: as `fast.fused` reads them, token after token.

A file holds one matrix after another, most of them as (out, in). Here matrices that meet the same vector lie side by
side in one array, and each is a view of its columns; every array has its rows one after the other, as (in, out). Where
the embedding is the output matrix as well, that counts: a row of it is looked up once a token, the whole as an output
matrix. To `Model.forward`, which takes many tokens at once, it is all the same.
"""

from itertools import accumulate

import numpy as np

# Arrays of a layer that meet the same vector; GPT-2's come joined
JOINED = (("wq", "wk", "wv"), ("w_gate", "w_up"))


def lay_out(config, arrays):
    """Move the arrays of a model to where they are read fast, one after the other: the old ones are let go.

    Parameters
    ----------
    config : Config
    arrays : dict of str to ndarray
        By our names: see `llama.shapes`. Changed in place: the same names, shapes and numbers.

    Returns
    -------
    dict of str to ndarray
        The same.
    """
    if config.tied:
        arrays["embed"] = side_by_side([arrays.pop("embed").T])[0].T
    for names in _groups(config, arrays):
        parts = side_by_side([arrays.pop(name) for name in names])
        arrays.update(zip(names, parts, strict=True))
    return arrays


def _groups(config, arrays):
    """Names of the matrices that lie together, or alone."""
    joined = [] if config.model_type == "gpt2" else JOINED
    together = [tuple(f"{i}.{name}" for name in names) for i in range(config.n_layers) for names in joined]
    others = {name for name, array in arrays.items() if array.ndim == 2} - {"embed", "position"}
    return [*together, *((name,) for name in others.difference(*together))]


def side_by_side(parts):
    """Matrices as columns of one new array.

    Parameters
    ----------
    parts : list of ndarray of shape (C, F), each of its own F
        They are let go when the list is.

    Returns
    -------
    list of ndarray of the same shapes
        Views of one array, its rows one after the other.

    Examples
    --------
    >>> a, b = side_by_side([np.ones((2, 1)), np.zeros((3, 2)).T])
    >>> (a.base is b.base, b.base.tolist())
    (True, [[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    """
    stops = list(accumulate(part.shape[1] for part in parts))
    whole = np.empty_like(parts[0], shape=(len(parts[0]), stops[-1]), order="C")
    columns = [whole[:, stop - part.shape[1] : stop] for part, stop in zip(parts, stops, strict=True)]
    for column, part in zip(columns, parts, strict=True):
        column[...] = part
    return columns
