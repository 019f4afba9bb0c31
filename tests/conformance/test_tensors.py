"""Tensors of PyTorch go in and come back. Needs the `parity` extra; skipped without it."""

import numpy as np
import pytest

from minisink import conformance

torch = pytest.importorskip("torch", reason="needs the parity extra: torch")
pytestmark = pytest.mark.filterwarnings("ignore:::torch")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_tensors_of_any_precision_come_back(dtype):
    """With a gradient, too; the tolerance follows what comes back, and more than that is found."""
    kind, share = getattr(torch, dtype), {"float64": 1e-7, "float32": 1e-2, "bfloat16": 1.0, "float16": 1.0}[dtype]

    def answers(error):
        def step(state, q, k, v, **sizes):
            assert q.dtype == kind
            cache = state or conformance.Cache(**sizes)
            out = cache.step(*(each.double().numpy() for each in (q, k, v))) * (1 + error)
            seen = {"token_index": torch.tensor(cache.token_index)}
            return torch.tensor(out, dtype=kind, requires_grad=True), cache, seen

        return step

    trace = conformance.drawn()
    make = lambda array: torch.from_numpy(array).to(kind)  # noqa: E731
    assert conformance.check(answers(0.0), trace, to=make)
    found = conformance.check(answers(share), trace, to=make)
    assert found.first.token == 0 and np.isfinite(found.worst)
