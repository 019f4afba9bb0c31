"""All weights of a model in one vector.

`Weights` says what each array is for; an optimizer does not care: it does the same to every number. So every array is a
*view* into one long vector: a step of AdamW is a few lines on vectors, the norm of a gradient one dot product, and
adding two gradients one addition. The order is embedding, matrices, the rest, so what decays is a slice.
"""

from math import prod

import numpy as np

from ..hf import arrays


def named_shapes(config):
    """List `hf.arrays.shapes` in the order of the vector: the embedding, the matrices, the rest."""
    shapes = arrays.shapes(config)
    rest = {name: shape for name, shape in shapes.items() if len(shape) == 1 or name == "position"}
    return {name: shape for name, shape in shapes.items() if name not in rest} | rest


def n_parameters(shapes):
    """Count the numbers in all arrays: P, the length of the vector."""
    return sum(map(prod, shapes.values()))


def views(vector, shapes):  # (P,)
    """Cut a vector into named arrays that share its memory."""
    stops = np.cumsum([prod(shape) for shape in shapes.values()]).tolist()
    parts = np.split(vector, stops[:-1])
    return {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}


def as_weights(config, vector):  # (P,)
    """Return the `Weights` of a model, or of its gradient, as views into a vector."""
    return arrays.from_arrays(config, views(vector, named_shapes(config)))


def decayed(config, shared=False):
    """Return the slice of the vector that decays: the matrices, but not what belongs to one token alone.

    An embedding that is also the output matrix decays like any other matrix; a separate one does not. If it is shared
    except for the input vector of ``<s>`` (id 0; see `share`), that vector does not decay: it may grow as a sink needs.
    """
    shapes = named_shapes(config)
    V, C = shapes["embed"]
    matrices = sum(prod(shape) for name, shape in shapes.items() if len(shape) == 2 and name != "position")
    return slice(0 if config.tied else C if shared else V * C, matrices)


def share(config, gradient):  # (P,)
    """Make the two copies of a shared embedding move together, in place.

    The input and output matrices are one, except for the input vector of ``<s>`` (id 0). A checkpoint has no name for
    that, so there are two matrices that start equal and share one gradient, the sum. (Both count in the clipped norm.)
    """
    named = views(gradient, named_shapes(config))
    embed, head = named["embed"][1:], named["head"].T[1:]  # both (V - 1, C)
    embed += head
    head[...] = embed


def go_on_from(config, weights, vector):  # (P,)
    """Write the `Weights` of a model into a vector of this config, in place.

    What the model lacks stays as it was: sink logits, learned positions beyond its own. What the config lacks is left
    out: an output matrix that it ties to the embedding.
    """
    for name, array in views(vector, named_shapes(config)).items():
        if (old := arrays.array_of(weights, name)) is not None:
            array[: len(old)] = old  # all of it, except learned positions


def initial_vector(config, seed, *, std=0.04, shared=False):  # -> (P,), float32 on the host
    """Draw random weights: normal with standard deviation `std`, norms 1, biases and sink logits 0.

    The two matrices that write to the residual stream are scaled by 1 / sqrt(2 L), so that its size does not grow with
    the number of layers (Radford et al., 2019).
    """
    shapes, random = named_shapes(config), np.random.default_rng(seed)
    vector = np.zeros(n_parameters(shapes), np.float32)
    named = views(vector, shapes)
    for name, array in named.items():
        if array.ndim == 2:
            scale = std / np.sqrt(2 * config.n_layers) if name.endswith(("wo", "w_down")) else std
            array[...] = random.standard_normal(array.shape) * scale
        elif name.endswith(("norm", "ln1", "ln2")):
            array[...] = 1.0
    if shared:
        named["head"][...] = named["embed"].T
    return vector
