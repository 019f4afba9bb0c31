"""The scripts of benchmarks/: what they write for others, what they time, and the page they make."""

import doctest
import linecache
import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

import minisink
from minisink.experiments import shapes, speed
from minisink.positions import rope_frequencies, rotate

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


with pytest.MonkeyPatch.context() as patch:  # the scripts import each other by their bare names
    patch.syspath_prepend(str(FOLDER))
    import contestants
    import formats
    import lines
    import measure
    import page
    import report
    import retrieval


@given(heads=st.integers(1, 3), half=st.integers(1, 4), position=st.integers(0, 9999), seed=st.integers(0, 99))
def test_channels_in_pairs_turn_as_neighbours(heads, half, position, seed):
    """What llama.cpp and llama2.c do to neighbours is what Hugging Face does to halves, channels in another order."""
    D, C = 2 * half, 5
    random = np.random.default_rng(seed)
    w, x = random.standard_normal((heads * D, C)), random.standard_normal(C)
    frequencies = rope_frequencies(D, 10000.0)
    halves = rotate((w @ x).reshape(1, heads, D), np.array([position]), frequencies)
    a, b = (formats.in_pairs(w, D) @ x).reshape(heads, half, 2).transpose(2, 0, 1)
    turned = (a + 1j * b) * np.exp(1j * position * frequencies)
    neighbours = np.stack((turned.real, turned.imag), axis=-1).reshape(heads * D)
    assert np.allclose(neighbours, formats.in_pairs(halves.reshape(heads * D, 1), D).ravel())


@pytest.mark.parametrize("tied", [True, False])
def test_llama2c_file(tied, tmp_path):
    """Header, then every tensor in llama2.c's order, and nothing else."""
    small = tiny.make(dtype=np.float32, tied=tied)
    model = minisink.Model(small.config, small.weights, name="tiny")
    formats.write_llama2c(model, tmp_path)
    config = model.config
    C, F, L, V, P = config.d_model, config.d_ff, config.n_layers, config.vocab_size, config.max_positions
    H, K, D = config.n_heads, config.n_kv_heads, config.head_dim
    data = np.fromfile(tmp_path / "model.bin", np.int32)
    assert data[:7].tolist() == [C, F, L, H, K, V if tied else -V, P]
    rest = data[7:].view(np.float32)

    def take(*shape):
        nonlocal rest
        array, rest = rest[: math.prod(shape)].reshape(shape), rest[math.prod(shape) :]
        return array

    def stacked(name):
        return np.stack([getattr(layer, name) for layer in model.weights.layers])

    pair = np.arange(D).reshape(2, D // 2).T.ravel()  # 0, D/2, 1, D/2 + 1, ...

    def paired(name, heads):
        return stacked(name).reshape(L, C, heads, D)[..., pair].reshape(L, C, -1).swapaxes(1, 2)

    assert (take(V, C) == model.weights.embed).all()
    assert (take(L, C) == stacked("attn_norm")).all()
    assert (take(L, H * D, C) == paired("wq", H)).all()
    assert (take(L, K * D, C) == paired("wk", K)).all()
    assert (take(L, K * D, C) == stacked("wv").swapaxes(1, 2)).all()
    assert (take(L, C, H * D) == stacked("wo").swapaxes(1, 2)).all()
    assert (take(L, C) == stacked("mlp_norm")).all()
    assert (take(L, F, C) == stacked("w_gate").swapaxes(1, 2)).all()
    assert (take(L, C, F) == stacked("w_down").swapaxes(1, 2)).all()
    assert (take(L, F, C) == stacked("w_up").swapaxes(1, 2)).all()
    assert (take(C) == model.weights.norm).all()
    take(P * D)  # unused
    if not tied:
        assert (take(V, C) == model.weights.head.T).all()
    assert len(rest) == 0
    words = (tmp_path / "tokenizer.bin").read_bytes()
    assert words[:4] == np.int32(3).tobytes() and words.endswith(np.int32(3).tobytes() + b"16 ")


def test_the_slow_line_is_found():
    """What a line calls outside of minisink is part of it, and the longest comes first."""
    found = lines.time_of_lines(lambda: speed.peak(partial(time.sleep, 0.005)), seconds=0.1, rounds=2)
    times = [s for _, s in found]
    assert found[0][0] == "speed.py: function()" and times[0] > 0.004
    assert min(times) >= 0 and times == sorted(times, reverse=True)
    assert "speed.py: tracemalloc.start()" in dict(found)


def test_time_after_a_call_belongs_to_the_caller(tmp_path, monkeypatch):
    """A line that calls another function of minisink and then takes long itself."""
    monkeypatch.setattr(lines, "PACKAGE", str(tmp_path))
    file = str(tmp_path / "made_up.py")
    source = "def quick():\n    pass\ndef slow(wait):\n    quick(), wait()\n"
    names = {}
    exec(compile(source, file, "exec"), names)
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    found = lines.time_of_lines(lambda: names["slow"](partial(time.sleep, 0.005)), seconds=0.1, rounds=2)
    del linecache.cache[file]
    assert found[0][0] == "made_up.py: quick(), wait()" and found[0][1] > 0.004


def test_lines_of_a_step():
    """Every line that a token runs has a time."""
    small = tiny.make(dtype=np.float32)
    decoder = speed.full_decoder(minisink.Model(small.config, small.weights, name="tiny"), 8)
    before = sys.gettrace()
    found = dict(lines.time_of_lines(lambda: decoder.step(0), seconds=0.05, rounds=2))
    assert sys.gettrace() is before
    assert sum(found.values()) > 0 and any(line.startswith("decoder.py: ") for line in found)


def test_turns_are_taken_until_patience_ends():
    """Everyone in turn, the median of them; the slow stop after three."""
    calls, clock = [], [0.0]

    def contestant(name, times):
        times = iter(times)

        def turn(seconds):
            calls.append(name)
            took = next(times)
            clock[0] += 10 * took
            return took

        return turn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure.time, "perf_counter", lambda: clock[0])
        found = measure.take_turns({"a": contestant("a", [1, 9, 2, 3, 2]), "b": contestant("b", [70, 90, 80])}, 5, 10.0)
    assert found == {"a": 2.0, "b": 80.0} and calls == ["a", "b", "a", "b", "a", "b", "a", "a"]


def test_a_text_in_blocks_is_timed_beside_one_token_at_a_time():
    found = measure.blocks(8, 1, 0.001, n_tokens=30)
    assert found.pop("cache") == 8 and {*found} == {"blocks", "readable", "decoder"} and min(found.values()) > 0


def test_what_was_evicted_is_put_into_the_cache():
    """A decoder of retrieval beside streaming: its store holds the evicted tokens, and a row of the table is timed."""
    model = shapes.random_model("novels", max_positions=400)
    streaming = speed.full_decoder(model, 256)
    decoder = retrieval.filled(model, streaming.weights, 40, "best")
    store = decoder.cache.stores[0]
    assert decoder.cache.n_seen == 40 + 256 and abs(store.keys).sum(axis=(0, 3)).ravel().nonzero()[0].tolist() == [
        *range(40 + 252)
    ]
    evicted, kept, *times = retrieval.decoding(model, streaming, 40, 1)
    assert (evicted, kept) == ("40", "0 MB") and len(times) == 5


def test_steadily():
    """Once when made and once in every turn untimed, and then until the time is over, at least once."""
    calls = []
    turn = contestants.steadily(lambda: calls.append(1))
    assert len(calls) == 1
    assert turn(0.0) > 0 and len(calls) == 3
    assert turn(0.01) < 0.01 and len(calls) > 5


def test_other_logits_are_refused():
    """A contestant that computes something else does not run."""
    contestants.check_logits("they", np.ones(3), np.ones(3))
    with pytest.raises(AssertionError, match="they gives other logits"):
        contestants.check_logits("they", np.ones(3), np.array([1.0, 1.0, 1.1]))


@pytest.mark.parametrize("module", [formats, page])
def test_examples(module):
    """Those in docstrings."""
    assert doctest.testmod(module).failed == 0 < doctest.testmod(module).attempted


def test_a_section_replaces_itself(tmp_path):
    """And leaves the others as they were, wherever it stands."""
    file = tmp_path / "page.md"
    page.put_section(file, ["## b", "1"])
    page.put_section(file, ["## c", "2", "### d", "3"])
    assert file.read_text() == "## b\n1\n## c\n2\n### d\n3\n"
    page.put_section(file, ["## c", "4"])
    page.put_section(file, ["## b", "5", "6"])
    assert file.read_text() == "## b\n5\n6\n## c\n4\n"


def results(minisink_ms=1.0, transformers_ms=1.7):
    """What measuring with two threads might find."""
    seconds = {"floor": 1e-3, "minisink": 1e-3 * minisink_ms, "transformers, eager": 1e-3 * transformers_ms}
    again = {"cache": 4096, "streaming_ms": 10.0, "recompute_ms": 221.0, "ratio": 22.1, "paper_ratio": 21.7}
    return {
        "threads": 2,
        "cache": 256,
        "busy": "load average at the start: 0.0",
        "contestants": {"minisink": "."},
        "decoding": {"gpt2-124m": {"seconds": seconds, "left_out": {"llama2.c": "no"}}},
        "blocks": [{"cache": 128, "blocks": 1e-5, "readable": 1e-3, "decoder": 1e-4}],
        "recompute": {"smollm2-135m": [again]},
        "lines": {"gpt2-124m": [["decoder.py: a | b", 9e-4], ["ring.py: c", 1e-5]]},
    }


def test_page():
    """Goals, tables, reasons."""
    text = "\n".join(report.page([results()]))
    assert "| decode, `gpt2-124m`: speed relative to transformers | ≥ 2 | 1.70, **not reached** |" in text
    assert "2 threads: even the floor, the products alone, is only 1.70 times" in text
    assert "| perplexity, `novels`, cache 128: speed-up from blocks | ≥ 20 | 100.0 |" in text
    assert "| re-computing relative to streaming, `smollm2-135m`, cache 4096 | ≥ 22.2 | 22.1, **not reached** |" in text
    assert "| transformers, eager | 1.70 (1.70) |" in text and "| floor | 1.00 |" in text
    assert "- llama2.c, all shapes: no" in text and "| llama2.c | – |" in text
    assert "| `decoder.py: a \\| b` | 900 | 99% |\n| all other lines | 10.0 | 1% |" in text
    assert "its lines are timed below" in "\n".join(report.page([results(transformers_ms=2.1, minisink_ms=1.1)]))
    assert "**not reached**" not in "\n".join(report.goals([{**results(transformers_ms=2.0), "recompute": {}}]))


def run(name, *options):
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    command = [sys.executable, str(FOLDER / name), *options]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_every_script(tmp_path):
    """All run as their help says, quickly, into the same page."""
    file = tmp_path / "page.md"
    quick = ["--repeats", "1", "--seconds", "0.01", "--write", str(file)]
    run("decode.py", "--shapes", "novels", "--recompute", "--lines", "novels", *quick)
    out = run("long.py", "--tokens", "1000", "--evaluate", "2000", *quick)
    layouts = run("layouts.py", "--shapes", "novels", *quick)
    blocks = run("blocks.py", *quick)
    costs = run("retrieval.py", "--shape", "novels", "--evicted", "0", "--tokens", "300", *quick[:2], *quick[-2:])
    text = file.read_text()
    assert text.endswith(out + layouts + blocks + costs) and "| novels | " in layouts and "| `ops.py: " in blocks
    assert "## Decoding one token at a time, 1 thread\n" in text
    assert "| 1,000 |" in out and "| 2,000 |" in out
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("decode.py", ["--shapes", "llama-7b"], "invalid choice: 'llama-7b'"),
        ("decode.py", ["--llama2c", "nowhere/run"], "nowhere/run: no such file"),
        ("decode.py", ["--repeats", "0"], "--repeats and --threads are 1 or more"),
        ("long.py", ["--tokens", "99"], "--tokens is 100 or more"),
    ],
)
def test_options_are_refused(name, options, message):
    """One line, before anything is measured."""
    with pytest.raises(subprocess.CalledProcessError) as error:
        run(name, *options)
    assert message in error.value.stderr.splitlines()[-1]
