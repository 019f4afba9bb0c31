"""The learned arrays by name, for every architecture."""

from dataclasses import fields

import numpy as np
import tiny
from hypothesis import given

from minisink.hf.arrays import from_arrays, shapes, to_arrays


@given(tiny.models())
def test_names_lead_to_the_arrays_and_back(model):
    """Every learned array has one name, in its shape; a tied output matrix has none, for it is the embedding."""
    arrays = to_arrays(model.config, model.weights)
    assert {name: array.shape for name, array in arrays.items()} == shapes(model.config)
    assert ("head" in arrays) != model.config.tied
    restored = from_arrays(model.config, arrays)
    pairs = [(restored, model.weights), *zip(restored.layers, model.weights.layers, strict=True)]
    named = {id(array) for array in arrays.values()}
    for got, want in pairs:
        for field in fields(got):
            a, b = getattr(got, field.name), getattr(want, field.name)
            if field.name == "head" and model.config.tied:
                assert np.shares_memory(a, model.weights.embed) and (a == b).all()
            elif field.name != "layers":
                assert a is b and (a is None or id(a) in named)
