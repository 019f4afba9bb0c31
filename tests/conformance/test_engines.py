"""The golden models in an engine that is not ours: transformers, its own cache cut to sinks and window by hand."""

import numpy as np
import pytest

from minisink import conformance

torch = pytest.importorskip("torch", reason="transformers needs torch")
transformers = pytest.importorskip("transformers", reason="no transformers")

pytestmark = [pytest.mark.filterwarnings(f"ignore:::{package}") for package in ("torch", "transformers")]


@pytest.fixture(scope="module", params=[pytest.param("llama", marks=pytest.mark.slow), "gqa", "gpt2"])
def engine(request, tmp_path_factory):
    """Name and model, loaded from the folder that `save` writes, in double precision."""
    folder = tmp_path_factory.mktemp(request.param)
    conformance.model(request.param).save(folder / "model")
    return request.param, transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float64)


def losses_of(model, trace, *, n_sinks=None, moved_on=1):
    """Nats of each token but the first, read one by one through a DynamicCache.

    Its keys stay rotated to their places in the text. So the sinks, whose distance to the query must not grow, are
    rotated on by `moved_on` with every token that leaves; GPT-2 gets the position of a slot.
    """
    n_sinks, capacity = trace.n_sinks if n_sinks is None else n_sinks, trace.capacity
    cache, losses = transformers.DynamicCache(), []
    for t, token in enumerate(trace.ids[:-1].tolist()):
        for layer in cache.layers if t >= capacity else ():
            keys = torch.cat((layer.keys[:, :, :n_sinks], layer.keys[:, :, n_sinks + 1 :]), dim=2)
            if trace.theta is not None:
                keys[:, :, :n_sinks] = rotated(keys[:, :, :n_sinks], moved_on, trace.theta)
            layer.keys = keys
            layer.values = torch.cat((layer.values[:, :, :n_sinks], layer.values[:, :, n_sinks + 1 :]), dim=2)
        place = t if trace.theta is not None else min(t, capacity - 1)
        with torch.no_grad():
            out = model(torch.tensor([[token]]), position_ids=torch.tensor([[place]]), past_key_values=cache)
        losses.append(-torch.log_softmax(out.logits[0, -1], dim=-1)[trace.ids[t + 1]].item())
    return np.array(losses)


def rotated(keys, n, theta):  # (1, K, S, D)
    half = keys.shape[-1] // 2
    angle = n * theta ** (-torch.arange(half, dtype=keys.dtype) / half)
    a, b = keys[..., :half], keys[..., half:]
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), dim=-1)


@pytest.mark.slow
def test_transformers_is_right(engine):
    """All of its tokens, evictions too, within what its rotation in single precision costs."""
    name, model = engine
    for trace in conformance.load(name):
        losses = losses_of(model, trace)
        assert conformance.check_losses(losses, trace) is None
        assert np.abs(losses - trace.losses).max() < 2e-5


def test_one_mistake_of_it_is_found_where_it_first_matters(engine):
    """A sink lost, or left where it was while the text went on: at the second token after the first eviction."""
    name, model = engine
    for trace in conformance.load(name):
        if trace.n_sinks:
            first = trace.capacity + 1  # the first whose predecessor has seen an eviction
            assert conformance.check_losses(losses_of(model, trace, n_sinks=trace.n_sinks - 1), trace) == first
            if trace.theta is not None:
                assert conformance.check_losses(losses_of(model, trace, moved_on=0), trace) == first
