"""States of other makes: what was saved, changed at random and signed anew, so that no digest tells."""

import copy
import json

import numpy as np
from hypothesis import strategies as st
from safetensors import safe_open

from minisink.system.files import save_state

HOSTILE = [None, True, False, 0, 1, -1, 2, 7, 64, 2**31, 2**40, 2**63, -(2**63), 10**30, 0.5, 1e300, float("nan")]
HOSTILE += ["", "7", "slot", "Streaming", "\ud800", [], [0], [[]], ["x"], list(range(300)), {}, {"name": "Dense"}]
hostile = st.sampled_from(HOSTILE).map(copy.deepcopy)
CHANGES = ("replace", "replace", "replace", "drop", "add", "swap")
DTYPES = ("float16", "float64", "int64", "int32", "bool", "uint8")


def read(path, kind):
    """What `save_state` wrote."""
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()[kind]), {name: file.get_tensor(name) for name in file.keys()}


def places(value, place=()):
    """Every place in what JSON can hold, as keys one after the other."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(deeper for key, each in inner for deeper in places(each, (*place, key)))]


def changed(draw, about, arrays):
    """Draw a change of a state, or several."""
    about, arrays = copy.deepcopy(about), dict(arrays)
    for _ in range(draw(st.integers(1, 3))):
        if arrays and draw(st.booleans()):
            _change_arrays(draw, arrays)
        else:
            about = _change_about(draw, about)
    return about, arrays


def _change_about(draw, about):
    place, how = draw(st.sampled_from(places(about))), draw(st.sampled_from(CHANGES))
    if not place:
        return draw(st.sampled_from([about, about, about, [], None, {}, 7]))
    around = about
    for key in place[:-1]:
        around = around[key]
    key, value = place[-1], around[place[-1]]
    if how == "drop":
        del around[key]
    elif how == "swap":
        around[key] = copy.deepcopy(draw(st.sampled_from([_at(about, other) for other in places(about)])))
    elif how == "add" and isinstance(value, list):
        value.append(draw(hostile))
    elif how == "add" and isinstance(value, dict):
        value[draw(st.sampled_from(["n_sinks", "window", "x"]))] = draw(hostile)
    elif type(value) is int and draw(st.booleans()):
        around[key] = value + draw(st.sampled_from([-1, 1]))
    else:
        around[key] = draw(hostile)
    return about


def _at(value, place):
    for key in place:
        value = value[key]
    return value


def _change_arrays(draw, arrays):
    name, how = draw(st.sampled_from(sorted(arrays))), draw(st.integers(0, 7))
    array = arrays[name]
    axis = draw(st.integers(0, array.ndim - 1)) if array.ndim else None
    if how == 0:
        del arrays[name]
    elif how == 1:
        arrays[draw(st.sampled_from(["x", "keys.0", "keys.9", "keys.x", "token_index.7", "keys"]))] = arrays.pop(name)
    elif how == 2 and axis is not None:
        arrays[name] = array.take(range(1, array.shape[axis]), axis) if array.shape[axis] else array
    elif how == 3 and axis is not None:
        arrays[name] = np.concatenate((array, array), axis)
    elif how == 4:
        arrays[name] = array.astype(draw(st.sampled_from(DTYPES)))
    elif how == 5:
        arrays[name] = array.reshape(draw(st.sampled_from([(-1,), (1, *array.shape), (*array.shape, 1), (-1, 1)])))
    elif how == 6:
        arrays[name] = np.zeros(
            draw(st.sampled_from([(0,), (0, 10**6, 10**6), (1, 0), (), (0, 3, 0, 5), (1, 1, 1)])), array.dtype
        )
    else:
        arrays[name] = array + np.ones((), array.dtype) if array.dtype.kind == "i" else np.flip(array).copy()


def sign(path, kind, about, arrays):
    """Write it as if nothing had happened."""
    save_state(path, kind, about, arrays)
