"""Tensors of PyTorch go in and come back. Needs the `parity` extra; skipped without it."""

import numpy as np
import pytest

from minisink import conformance

torch = pytest.importorskip("torch", reason="needs the parity extra: torch")
pytestmark = pytest.mark.filterwarnings("ignore:::torch")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_tensors_of_any_precision_come_back(dtype):
    """With a gradient, too; the tolerance follows what comes back, and more than that is found."""
    kind, share = getattr(torch, dtype), {"float64": 1e-7, "float32": 1e-2, "bfloat16": 1.0, "float16": 0.2}[dtype]

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


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_right_cache_may_round(dtype):
    """All of it in the precision that comes in, over the golden vectors and a longer trace with wide heads."""

    def rotated(x, positions, theta):
        rates = theta ** (-torch.arange(0, x.shape[-1], 2, dtype=torch.float64) / x.shape[-1])
        angles = (positions[:, None] * rates)[:, None, :]
        (a, b), cos, sin = x.chunk(2, -1), angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def step(state, q, k, v, *, n_sinks, window, theta):
        keys, values = (
            torch.cat((old, new[None])) for old, new in zip(state or (k[None][:0], v[None][:0]), (k, v), strict=True)
        )
        n = len(keys)
        if n > n_sinks + window:
            stay = [*range(n_sinks), *range(n - window, n)]
            keys, values = keys[stay], values[stay]
        query, met, places = q[None], keys, torch.arange(len(keys))
        if theta is not None:
            query, met = rotated(query, places[-1:], theta), rotated(keys, places, theta)
        each = (x.repeat_interleave(len(q) // len(k), 1).transpose(0, 1) for x in (met, values))
        out = torch.nn.functional.scaled_dot_product_attention(query.transpose(0, 1), *each)
        return out[:, 0], (keys, values)

    long = conformance.drawn(n_sinks=4, window=60, n_tokens=200, n_heads=8, n_kv_heads=2, head_dim=64)
    report = conformance.check(
        step, [*conformance.NAMES, long], to=lambda array: torch.from_numpy(array).to(getattr(torch, dtype))
    )
    assert report, report
