"""The golden losses of trained models: four ways agree on them, and a whole engine's are compared with them."""

import json

import make_losses
import numpy as np
import pytest

import minisink
from minisink import conformance
from minisink.conformance import texts

NATS = 1e-9  # between ways to compute in float64
OTHERS = conformance.TEXTS[1:]
MODELS = pytest.mark.parametrize("name", conformance.TEXTS)


@pytest.fixture(scope="module")
def model_of():
    """Models in float64, each loaded once."""
    models = {}

    def load(name):
        if name not in models:
            models[name] = minisink.load(name, dtype="float64")
        return models[name]

    return load


@pytest.mark.parametrize("name", ["novels", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_the_fast_path_has_these_losses(name, model_of):
    """Recomputed windows of 64 only where there is time."""
    for recorded in conformance.losses(name):
        if name == "novels" and recorded.method == minisink.Recompute(64):
            continue
        fast = minisink.token_nll(model_of(name), recorded.ids, recorded.method)
        assert np.abs(fast - recorded.losses).max() < NATS, str(recorded)
        assert conformance.check_losses(fast, recorded) is None


@pytest.mark.slow
@MODELS
def test_the_script_makes_them_anew(name):
    """Integers and what a file says of itself to the letter, losses to 1e-10 nats."""
    (said, recorded), (about, made) = texts.read(name), make_losses.build(name)
    assert said == json.loads(json.dumps(about)) and set(recorded) == set(made)
    for each, array in made.items():
        assert (recorded[each].dtype, recorded[each].shape) == (array.dtype, array.shape)
        np.testing.assert_allclose(recorded[each], array, rtol=0, atol=0 if each == "ids" else 1e-10)


@MODELS
def test_a_wrong_engine_is_found_at_the_token(name):
    for recorded in conformance.losses(name):
        for t in (1, 300, len(recorded.losses)):
            if t <= len(recorded.losses):
                wrong = recorded.losses.copy()
                wrong[t - 1 :] += 1e-3
                assert conformance.check_losses(wrong, recorded) == t
    with pytest.raises(ValueError, match=r"losses have shape \(9,\); novels.* has \(\d+,\)"):
        conformance.check_losses(np.zeros(9), recorded)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'mistral'; there are golden losses of novels, novels-vanilla"):
        conformance.losses("mistral")
