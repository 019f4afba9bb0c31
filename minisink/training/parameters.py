"""All weights of a model in one vector.

`Weights` says what each array is for; an optimizer does not care, it does the same to every number. So every
array is a *view* into one long vector: a step of AdamW is a few lines on vectors, the norm of a gradient one
dot product, and adding two gradients one addition. The order is: embedding, matrices, the rest; so what decays
is a slice.
"""

import numpy as np


def named_shapes(arch, config):
    """Name and shape of every array that is learned: the embedding, the matrices, the rest.

    Parameters
    ----------
    arch : module
        `minisink.llama` or `minisink.gpt2`.
    config : Config

    Returns
    -------
    dict of str to tuple
        Those of `llama.shapes` or `gpt2.shapes`.
    """
    shapes = arch.shapes(config)
    rest = {name: shape for name, shape in shapes.items() if len(shape) == 1 or name == "position"}
    return {name: shape for name, shape in shapes.items() if name not in rest} | rest


def decayed(arch, config, shared=False):
    """Which part of the vector decays: the matrices, but not what belongs to one token alone.

    An embedding that is also the output matrix decays like any other. The input vector of ``<s>`` (id 0) does
    not when it is its own: it is free to grow as a sink needs. A separate input embedding does not decay.

    Parameters
    ----------
    arch : module
    config : Config
    shared : bool
        See `share`.

    Returns
    -------
    slice
    """
    shapes = named_shapes(arch, config)
    V, C = shapes["embed"]
    matrices = sum(_size(shape) for name, shape in shapes.items() if len(shape) == 2 and name != "position")
    return slice(0 if config.tied else C if shared else V * C, matrices)


def share(arch, config, gradient):
    """Make the two copies of a shared embedding move together, in place.

    Input and output matrix are one, except for the input vector of ``<s>`` (id 0). A checkpoint has no name for
    that, so there are two matrices that start equal and get the same gradient, the sum of both. (Both count in the
    norm that is clipped.)

    Parameters
    ----------
    arch : module
    config : Config
        Not tied.
    gradient : ndarray of shape (P,)
    """
    arrays = views(gradient, named_shapes(arch, config))
    embed, head = arrays["embed"][1:], arrays["head"].T[1:]  # both (V - 1, C)
    embed += head
    head[...] = embed


def go_on_from(arch, config, weights, vector):
    """Write the weights of a model over those of a vector, in place.

    What the model does not have stays as it was: sink logits it came without, learned positions beyond its own.
    What it has and the config does not is left out: an output matrix, where the config ties it to the embedding.

    Parameters
    ----------
    arch : module
    config : Config
        Of the vector; the model's but for these.
    weights : Weights
        Of the model.
    vector : ndarray of shape (P,)
        From `initial_vector`.
    """
    for name, array in views(vector, named_shapes(arch, config)).items():
        layer, _, own = name.rpartition(".")
        old = getattr(weights.layers[int(layer)] if layer else weights, own)
        if old is not None:
            array[: len(old)] = old  # all of it, but for learned positions


def n_parameters(shapes):
    """Length of the vector."""
    return sum(_size(shape) for shape in shapes.values())


def views(vector, shapes):
    """Cut a vector into named arrays that share its memory.

    Parameters
    ----------
    vector : ndarray of shape (P,)
    shapes : dict of str to tuple
        From `named_shapes`.

    Returns
    -------
    dict of str to ndarray
    """
    arrays, start = {}, 0
    for name, shape in shapes.items():
        arrays[name] = vector[start : start + _size(shape)].reshape(shape)
        start += _size(shape)
    return arrays


def as_weights(arch, config, vector):
    """The `Weights` of a model as views into a vector.

    Parameters
    ----------
    arch : module
    config : Config
    vector : ndarray of shape (P,)
        Weights, or their gradient.

    Returns
    -------
    Weights
    """
    return arch.from_arrays(config, views(vector, named_shapes(arch, config)))


def initial_vector(arch, config, seed, *, std=0.04, shared=False, dtype=np.float32):
    """Random weights: normal with deviation `std`, norms 1, biases and sink logits 0.

    The two matrices that write to the residual stream are scaled by 1 / sqrt(2 L), so that its size does not
    grow with the number of layers (Radford et al., 2019).

    Parameters
    ----------
    arch : module
    config : Config
    seed : int
    std : float
    shared : bool
        See `share`.
    dtype : dtype

    Returns
    -------
    numpy.ndarray of shape (P,)
        On the host.
    """
    shapes = named_shapes(arch, config)
    vector = np.zeros(n_parameters(shapes), dtype)
    random = np.random.default_rng(seed)
    arrays = views(vector, shapes)
    for name, array in arrays.items():
        last = name.split(".")[-1]
        if array.ndim == 2:
            scale = std / np.sqrt(2 * config.n_layers) if last in ("wo", "w_down") else std
            array[...] = random.standard_normal(array.shape) * scale
        elif last in ("norm", "attn_norm", "mlp_norm", "ln1", "ln2"):
            array[...] = 1.0
    if shared:
        arrays["head"][...] = arrays["embed"].T
    return vector


def _size(shape):
    size = 1
    for n in shape:
        size *= n
    return size
