"""What the bench measures, on models so small that the numbers mean nothing: its rows, its words and its refusals."""

import json

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tiny import public

import minisink
from minisink import gpt2
from minisink.commands.parser import main
from minisink.commands.reproduce_report import plain
from minisink.experiments import speed
from minisink.experiments.shapes import SHAPES, random_model
from minisink.hf.arrays import shapes


@pytest.fixture
def model():
    """A tiny Llama in float32."""
    small = tiny.make(dtype=np.float32)
    return minisink.Model(small.config, small.weights, name="tiny")


def test_the_floor_is_the_products_of_a_token(model):
    """Every matrix of the decoder meets one vector, each once, and nothing else happens."""
    decoder = speed.full_decoder(model, 8)
    products = speed.floor(decoder)
    C, Q, KV, F, V = 10, 24, 12, 14, 17
    sizes = 3 * [(C, Q + 2 * KV), (Q, C), (C, 2 * F), (F, C)] + [(C, V)]
    assert [(len(x), w.shape[1]) for x, w in products.__closure__[0].cell_contents] == sizes
    assert products() is None


def test_a_full_decoder_goes_on_anywhere(model):
    """Its cache is full, its next token is the one asked for, and weights are shared, not copied."""
    early = speed.full_decoder(model, 8, n_sinks=2)
    late = speed.full_decoder(model, 5, n_sinks=2, n_seen=1_000_000, weights_of=early)
    assert (len(early.cache), early.cache.n_seen, early.cache.policy.window) == (8, 1000, 6)
    assert (len(late.cache), late.cache.n_seen, late.cache.policy.window) == (5, 1_000_000, 3)
    assert late.weights is early.weights
    assert np.isfinite(late.step(3)).all() and late.cache.n_seen == 1_000_001 and early.cache.n_seen == 1000


def test_rows_of_the_comparison(model):
    """A row a cache; the ratio is that of the two times, the bytes hold at least the cache."""
    seen = []
    rows = list(speed.run(model, caches=(6, 256), repeats=1, track=lambda caches: seen.append(caches) or caches))
    assert [row["cache"] for row in rows] == [6, 256] and seen == [[6, 256]]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["recompute_ms"] / row["streaming_ms"])
        assert row["streaming_bytes"] > row["cache"] * minisink.methods.cache_bytes_per_token(model)
        assert row["recompute_bytes"] > row["cache"] * 4 * 10  # the residual stream at least
    assert np.isnan(rows[0]["paper_ratio"]) and rows[1]["paper_ratio"] == pytest.approx(63 / 31)


def test_a_row_a_cache_with_all_its_repeats(monkeypatch):
    """The smallest first; times are the medians of the repeats, the ratio is theirs."""
    timed = speed.timed
    monkeypatch.setattr(speed, "timed", lambda functions, *, repeats: timed(functions, repeats=repeats, seconds=0))
    model = public(tiny.make(dtype=np.float32))
    rows = list(speed.run(model, caches=(9, 6, 9), n_sinks=2, repeats=3))
    assert [row["cache"] for row in rows] == [6, 9]
    for row in rows:
        assert row["times"].shape == (3, 2) and (row["times"] > 0).all()
        assert np.median(row["times"], axis=0).tolist() == pytest.approx([row["streaming_ms"], row["recompute_ms"]])
        assert row["ratio"] == pytest.approx(row["recompute_ms"] / row["streaming_ms"])
    for effect in speed.effects(rows):
        assert np.isfinite([effect.size, effect.low, effect.high]).all()
    assert speed.effects(rows).__next__().size == pytest.approx(rows[-1]["ratio"])


@examples(6)
@given(st.floats(0.0, 2.0), st.floats(0.01, 9.0), tiny.seeds)
def test_the_power_of_the_growth_is_found(power, factor, seed):
    """Whatever unit the times have; far from 1, growth is not about linear, and a ratio below 1 not faster."""
    noise = np.random.default_rng(seed).uniform(0.99, 1.01, (4, 7, 1))
    rows = [
        {"cache": cache, "times": wobble * np.array([[2.0, 2.0 * factor * (cache / 64) ** power]])}
        for cache, wobble in zip((8, 16, 32, 64), noise, strict=True)
    ]
    faster, grows = speed.effects(rows)
    assert (faster.size, grows.size) == (pytest.approx(factor), pytest.approx(power))
    assert faster.shown == (faster.size > 1 and faster.low > 1) and grows.shown == (
        grows.low > 0.5 and grows.high < 1.5
    )
    assert len(list(speed.effects(rows[:1]))) == 1


def test_the_table_names_the_papers_ratio_where_there_is_one():
    rows = [
        {
            "cache": cache,
            "streaming_ms": 0.5,
            "recompute_ms": 20.0,
            "ratio": 40.0,
            "paper_ratio": paper,
            "streaming_bytes": 1024,
            "recompute_bytes": 2048,
        }
        for cache, paper in ((64, float("nan")), (256, 2.03))
    ]
    cells = [line.split() for line in plain(rows).splitlines()[2:]]
    assert [line[0] for line in cells] == ["64", "256"] and [line[4] for line in cells] == ["-", "2.03"]


@pytest.mark.parametrize(
    ("caches", "options", "message"),
    [
        ((4, 9), {}, "a cache of 4 tokens cannot hold 4 sinks"),
        ((8, 9), {"n_sinks": -1}, "-1 sinks"),
        ((8, 9), {"repeats": 0}, "--repeats is 0"),
        ((6, 9), {}, "tiny has learned 8 positions, and a cache of 9 needs more"),
    ],
)
def test_what_cannot_be_timed_is_refused(caches, options, message):
    with pytest.raises(ValueError, match=message):
        list(speed.run(public(tiny.make(gpt2, max_positions=8)), caches=caches, **options))


def test_decoding_beside_its_floor(model):
    """Times are positive, ratios are those of the times."""
    row = speed.decoding(model, cache=8, repeats=1, seconds=0.001)
    assert row["over_floor"] == pytest.approx(row["decode_ms"] / row["floor_ms"])
    assert row["late_over_early"] == pytest.approx(row["late_ms"] / row["decode_ms"])
    assert row["tokens_per_second"] == pytest.approx(1e3 / row["decode_ms"])
    assert row["cache_bytes"] == 8 * minisink.methods.cache_bytes_per_token(model)


def test_a_call_is_timed_so_often_that_the_median_says_it():
    """The median of the calls, whichever is slow by accident."""
    waits = iter([0.0, 0.0, 0.0, 0.05, 0.0, 0.0])
    clock = [0.0]

    def call():
        clock[0] += 1.0 + next(waits, 0.0)

    def timeit(function, number):
        before = clock[0]
        for _ in range(number):
            function()
        return clock[0] - before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "timeit", timeit)
        times = speed.timed({"call": call}, repeats=3, seconds=1.0)["call"]
        assert len(times) == 3 and np.median(times) == pytest.approx(1.0)


def test_shapes_are_what_they_say():
    """Parameters of the well-known models, and a shape that is not known."""
    counts = {}
    for name, config in SHAPES.items():
        counts[name] = sum(int(np.prod(shape)) for shape in shapes(config).values())
    assert counts == {
        "novels": 1_066_112,
        "stories15m": 15_191_712,
        "smollm2-135m": 134_515_008,
        "gpt2-124m": 124_439_808,
        "tinyllama-1.1b": 1_100_048_384,
        "pythia-70m": 70_426_624,
        "pythia-410m": 405_334_016,
        "qwen3-0.6b": 596_049_920,
    }
    assert random_model("novels", max_positions=500).config.max_positions == 500
    assert random_model("novels").weights.embed.tobytes() == random_model("novels").weights.embed.tobytes()
    with pytest.raises(ValueError, match="shape is 'llama-7b'; it must be one of novels"):
        random_model("llama-7b")


def test_bench(capsys, tmp_path, monkeypatch):
    """The command prints a table, JSON without NaN, and a picture; here each turn is one call."""
    timed = speed.timed
    monkeypatch.setattr(speed, "timed", lambda functions, *, repeats, **_: timed(functions, repeats=repeats, seconds=0))
    options = ["bench", "--shape", "novels", "--caches", "16", "8", "--repeats", "1"]
    assert main(options) == 0
    out = capsys.readouterr().out
    assert "novels: 1,066,112 parameters" in out and "of its matrix-vector products alone" in " ".join(out.split())
    assert [line.split()[0] for line in out.splitlines()[4:6]] == ["8", "16"]
    assert main([*options, "--json", "--plot", str(tmp_path / "speed.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["cache"] for row in found["rows"]] == [8, 16] and found["rows"][0]["paper_ratio"] is None
    assert found["decode"]["cache"] == 8
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--caches", "4"], "a cache of 4 tokens cannot hold 4 sinks"),
        (["--caches", "0"], "a cache of 0 tokens"),
        (["--caches", "8", "--n-sinks", "-1"], "-1 sinks"),
        (["--repeats", "0"], "--repeats is 0"),
        (["--plot", "speed.xyz"], "a picture's name ends in one of"),
        (["--model", "nobody/nothing/nowhere"], "no such folder"),
    ],
)
def test_bench_refuses(options, message, capsys):
    """One line on stderr and status 2, before anything is measured."""
    assert main(["bench", *options]) == 2
    assert message in capsys.readouterr().err
