"""A text in parts that know nothing of each other: the losses of the whole, and of no more is anything needed."""

import re
import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import gpt2, llama
from minisink.evaluation import parts as evaluation
from minisink.evaluation.parts import Past, measured, reach
from minisink.families import gpt_neox, mpt
from minisink.fast.blocks import Banded
from minisink.methods import ByLayer, Dense, Policy, Recompute, Streaming, Window
from minisink.retrieval import Retrieval

BY_LAYER = [Streaming(2, 5), Window(7), Streaming(1, 3)]
methods = (
    st.builds(Streaming, st.integers(0, 8), st.integers(1, 9), tiny.positions)
    | st.builds(Window, st.integers(1, 9), tiny.positions)
    | st.builds(Policy, st.integers(0, 8), st.integers(1, 9), tiny.positions)
    | st.integers(1, 9).flatmap(
        lambda w: st.builds(Recompute, st.just(w), st.sampled_from([(), (3,)] if w > 1 else [()]))
    )
)

DOCS = Path(__file__).parents[2] / "docs"


def joined(blocks):
    return np.concatenate([np.empty(0), *blocks])


@examples(20)
@given(tiny.all_models(), methods, st.integers(1, 60), st.integers(1, 70), st.booleans())
@example(tiny.make(), Streaming(8, 2), 20, 7, False)
def test_parts_are_the_whole(model, method, n_tokens, parts, in_pieces):
    """Every model and numbering; parts shorter than the reach, of one token, and more of them than tokens."""
    model, ids = tiny.public(model), tiny.ids(n_tokens)
    whole = minisink.token_nll(model, ids, method)
    got = list(minisink.nll_parts(model, ids, method, parts=parts))
    assert len(got) <= parts and all(map(len, got))
    np.testing.assert_allclose(joined(got), whole, rtol=0, atol=1e-9)
    if in_pieces:
        pieces = (ids[i : i + 7] for i in range(0, n_tokens, 7))
        blocks = measured(model, pieces, Past(model, method), max(1, n_tokens // parts), None)
        np.testing.assert_allclose(joined(blocks), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("arch", [llama, gpt2, mpt, gpt_neox])
@pytest.mark.parametrize(
    "method", [Streaming(8, 6), Streaming(3, 9, "original"), Window(5), ByLayer(BY_LAYER)], ids=str
)
def test_no_less_would_do(monkeypatch, arch, method):
    """One token of run-up less, and the first loss of a part is another; so is it without the sinks."""
    if arch is gpt2 and isinstance(method, ByLayer):
        method = ByLayer([Streaming(2, 5), Window(7), Streaming(1, 6)])
    model, ids = tiny.public(tiny.make(arch)), tiny.ids(60)
    whole = minisink.token_nll(model, ids, method)
    off = abs(joined(minisink.nll_parts(model, ids, method, parts=2)) - whole)
    assert off.max() < 1e-9
    n = reach(model, method)
    monkeypatch.setattr(evaluation, "reach", lambda *_: n - 1)
    off = abs(joined(minisink.nll_parts(model, ids, method, parts=2)) - whole)
    assert off[:30].max() < 1e-9 < 1e-7 < off[30] and np.isfinite(off).all()


def test_readable_parts_are_the_whole():
    """As `cache` has it, for a breakpoint there."""
    model, ids = tiny.public(tiny.make()), tiny.ids(40)
    for method in (Streaming(2, 5), Recompute(4)):
        blocks = measured(model, [ids], Past(model, method, readable=True), 9, None)
        np.testing.assert_allclose(joined(blocks), minisink.token_nll(model, ids, method), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("method", "why"),
    [
        (Dense(), r"Dense\(.*\) cannot be measured in parts: it keeps every token before; a window can"),
        (Policy(), "it keeps every token before"),
        (Retrieval(2, 5, block=1), r"Retrieval\(.*\) cannot be measured in parts: it fetches tokens from any"),
        (ByLayer([Window(5), Dense(), Window(5)]), r"ByLayer\(.*it keeps every token before"),
        (ByLayer([Window(5), Window(5)]), "2 policies, but the model has 3 layers"),
        ("streaming", "pass a value, such as minisink.Streaming"),
    ],
    ids=str,
)
def test_methods_without_an_end_are_refused(method, why):
    """By name, before anything is measured."""
    with pytest.raises(ValueError, match=why):
        minisink.nll_parts(tiny.public(tiny.make()), tiny.ids(20), method)


def test_a_policy_of_your_own_is_refused():
    """It may keep whatever it likes; so may one layer's."""

    class Newest(Streaming):
        def survivors(self, token_index):
            return np.arange(len(token_index))[-2:]

    model = tiny.public(tiny.make())
    for method in (Newest(2, 5), ByLayer([Window(5), Newest(2, 5), Window(5)])):
        with pytest.raises(ValueError, match="cannot be measured in parts: a custom policy"):
            minisink.nll_parts(model, tiny.ids(20), method)


def test_bad_calls_are_refused_at_once():
    """Ids, the number of parts, and that number where the length is not known."""
    model, ids = tiny.public(tiny.make()), tiny.ids(20)
    for parts in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=f"parts is {parts!r}; it must be a whole number of 1 or more"):
            minisink.nll_parts(model, ids, Window(5), parts=parts)
    with pytest.raises(ValueError, match="parts is 3, but the length of a text in pieces is not known"):
        minisink.nll_parts(model, iter([ids]), Window(5), parts=3)
    for bad in ([], [17], "text", [1.5]):
        with pytest.raises(ValueError, match="ids|id 17"):
            minisink.nll_parts(model, bad, Window(5))
    assert list(minisink.nll_parts(model, [5], Window(5))) == list(minisink.nll_parts(model, [[5]], Window(5))) == []


def test_pieces_that_fail_come_after_their_losses():
    """And are read no farther ahead than the parts need."""
    model, ids, read = tiny.public(tiny.make()), tiny.ids(50), []

    def pieces():
        for i in range(0, 50, 10):
            read.append(i)
            yield ids[i : i + 10]
        raise OSError("the disk")

    with ThreadPoolExecutor(2) as executor:
        for one in (None, executor):
            blocks, got = measured(model, pieces(), Past(model, Window(5)), 7, one), []
            with pytest.raises(OSError, match="the disk"):
                got.extend(blocks)
            np.testing.assert_allclose(joined(got), minisink.token_nll(model, ids, Window(5)), rtol=0, atol=1e-9)
    read.clear()
    assert len(next(measured(model, pieces(), Past(model, Window(5)), 7, None))) == 7 and read == [0]


@pytest.mark.parametrize("arch", [llama, gpt2, mpt])
def test_long_parts_have_the_same_bits(arch):
    """They begin with a chunk of the whole text, and so does the run-up."""
    model, ids = tiny.public(tiny.make(arch, dtype=np.float32, max_positions=256)), tiny.ids(2600)
    for method in (Streaming(5, 9), Window(7)):
        got = list(minisink.nll_parts(model, ids, method, parts=4))
        assert [len(nll) for nll in got] == [768, 768, 768, 295]
        np.testing.assert_array_equal(joined(got), minisink.token_nll(model, ids, method))


@pytest.mark.parametrize("n_before", [64, 100, 512])
def test_a_stream_continues_in_the_chunks_of_the_whole(n_before):
    """Wherever it stopped, also where the learned positions of a GPT-2 end: no matrix has another shape afterwards."""
    model, method = tiny.public(tiny.make(gpt2, dtype=np.float32)), Window(5)
    cache, ids = Banded(model.config.n_layers, method), tiny.ids(1000)
    minisink.token_nll(model, ids[: n_before + 1], cache=cache)
    sizes = [len(nll) for nll in minisink.nll_stream(model, [ids[n_before:]], cache=cache)]
    ends = (n_before + np.cumsum(sizes)).tolist()
    assert ends == [n for n in (256, 512, 768, 999) if n > n_before]


@pytest.mark.slow
def test_the_figure_ends_at_the_stairs():
    """After each layer as many more tokens see too little as a window has others; then rounding is left."""
    figure = runpy.run_path(str(DOCS / "parts.py"))
    off = figure["differences"]()
    step = figure["METHOD"].window - 1
    for layer in range(1, len(off)):
        assert off[layer, layer * step :].max() < 2e-6 and off[layer, : layer * step - 1].min() > 1e-6
    assert f"{off.max():.0%}".replace("%", " %") in (DOCS / "parts.md").read_text("utf-8")


@pytest.mark.slow
def test_the_page_prints_what_it_says(capsys):
    """The example in a program."""
    code, printed = re.search(
        r"```python\n(.*?)```\nprints\n```\n(.*?)```", (DOCS / "parts.md").read_text("utf-8"), re.S
    ).groups()
    exec(compile(code, "parts.md", "exec"), {})
    assert capsys.readouterr().out == printed
