"""What is asked of a text: where the answers stand, how they are scored, and what is said of them."""

import math

import numpy as np
import pytest
import tiny
from folders import words
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import Dense, Recompute, Retrieval, Streaming, Window
from minisink.experiments.recall import Asked, ask, effects, measure, score, under
from minisink.generation import generate


@pytest.fixture(scope="module")
def novels():
    return minisink.load("novels")


def model_of(tokenizer=None):
    """A tiny model, in float64."""
    made = tiny.make()
    return minisink.Model(made.config, made.weights, tokenizer, name="tiny")


@examples(40)
@given(before=st.text("ab <>\n7é€", max_size=12), after=st.text("ab <>\n7é€", max_size=12), bos=st.booleans())
def test_the_tokens_of_a_place_hold_its_characters(novels, before, after, bos):
    """All of them, and no token beside them does."""
    text = f"{before}12345{after}"
    asked = ask(novels, text, [], [(len(before), len(before) + 5)], bos=bos)
    ids, ((start, stop),) = asked.ids, asked.answers
    assert (ids == novels.encode(text, bos=bos)).all()
    assert "12345" in novels.decode(ids[start:stop])
    assert "12345" not in novels.decode(ids[start + 1 : stop]) and "12345" not in novels.decode(ids[start : stop - 1])


def test_a_model_that_cannot_be_asked_says_so():
    with pytest.raises(ValueError, match="has no tokenizer"):
        ask(model_of(), "1 12345", [], [(2, 7)])
    with pytest.raises(ValueError, match="its tokenizer reads '12345' as 'w0'"):
        ask(model_of(words(17)), "w1 12345", [(3, 8)], [])


SLOTS = Streaming(1, 6)
METHODS = [(method, False) for method in (Dense(), Window(7), SLOTS, Retrieval(1, 6, n_blocks=2, block=3))]


@pytest.mark.parametrize(("method", "readable"), [*METHODS, (SLOTS, True)], ids=str)
@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_an_answer_is_scored_by_its_loss_and_by_greedy_decoding(method, readable, chunk):
    """What `token_nll` says of its tokens; exact where `generate`, given the text before, writes it."""
    model, ids = model_of(), np.array(tiny.ids(24, 3))
    with_greedy = np.concatenate((ids, list(generate(model, ids, method, max_new_tokens=3))))
    answers = [(9, 11), (12, 15), (17, 18), (24, 27)]
    asked = Asked(with_greedy, answers, [(2, 4)] * 4)
    nll, exact = score(model, asked, method, readable=readable, chunk=chunk)
    whole = minisink.token_nll(model, with_greedy, method)
    np.testing.assert_allclose(nll, [whole[a - 1 : b - 1].mean() for a, b in answers], rtol=1e-6)
    for (a, b), said in zip(answers, exact, strict=True):
        written = list(generate(model, with_greedy[:a], method, max_new_tokens=b - a))
        assert said == (written == with_greedy[a:b].tolist())
    assert exact[-1] and not exact.all()
    assert asked.back == [7, 10, 15, 22]


def test_no_text_after_the_last_answer_is_read(monkeypatch):
    model, ids = model_of(), np.array(tiny.ids(24, 3))
    seen, forward = [], type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, ids, **how: seen.append(len(ids)) or forward(self, ids, **how)
    )
    score(model, Asked(ids, [(3, 5)], [(1, 2)]), SLOTS, chunk=2)
    assert seen == [2, 2]


def test_a_method_that_reads_again_is_refused():
    with pytest.raises(ValueError, match="keeps no cache"):
        score(model_of(), Asked(np.array([1, 2]), [(1, 2)], [(0, 1)]), Recompute(7))


def test_a_method_is_made_of_its_name_and_its_slots():
    """Sinks and what comes back are those of a `Retrieval`; "dense" and "window" have no sinks to make room for."""
    fetched = Retrieval(2, 99, n_blocks=3, block=4, select="bound")
    assert under("dense", 7, fetched) == Dense() and under("window", 2, fetched) == Window(2)
    assert under("streaming", 7, fetched) == Streaming(2, 5)
    assert under("retrieval", 7, fetched) == Retrieval(2, 5, n_blocks=3, block=4, select="bound")
    with pytest.raises(ValueError, match="a cache of 2 tokens cannot hold 2 sinks"):
        under("streaming", 2, fetched)
    with pytest.raises(ValueError, match="--methods has sliding; choose from dense, window, streaming, retrieval"):
        under("sliding", 7, fetched)


def test_a_row_counts_what_was_in_the_cache():
    """An answer is in the cache while its telling is no more than a window back; a cache of sinks alone is none."""
    model, ids = model_of(), np.array(tiny.ids(24, 3))
    texts = [Asked(ids, [(9, 12)], [(4, 7)]), Asked(ids, [(10, 13)], [(4, 7)])]
    rows = {cache: measure(model, texts, Streaming(1, cache - 1)) for cache in (5, 6, 7)}
    assert [row["in_cache"] for row in rows.values()] == [False, None, True]
    assert (rows[5]["nearest"], rows[5]["farthest"]) == (5, 6) and rows[5]["asked"] == 2
    assert math.isclose(rows[5]["chance"], math.log(90_000) / 3)
    assert (rows[5]["method"], rows[5]["cache"], rows[5]["n_sinks"]) == ("streaming", 5, 1)
    alone = [score(model, text, Streaming(1, 4))[0][0] for text in texts]
    assert math.isclose(rows[5]["nll"], np.mean(alone), rel_tol=1e-9)
    dense = measure(model, texts, Dense())
    assert dense["in_cache"] is True and dense["cache"] is None
    assert measure(model, texts, Window(6))["in_cache"] is True


def row(method, in_cache, nlls, exacts):
    """A row of `measure`, as far as the effects read it."""
    about = {"method": method, "in_cache": in_cache, "chance": 2.28}
    return about | {"nlls": np.array(nlls), "exacts": np.array(exacts, bool)}


def test_the_effects_tell_the_cliff_and_what_is_brought_back():
    """Answers out of the cache against those in it, and against the same answers by retrieval."""
    rows = [row("streaming", True, [0.5, 0.7], [1, 1]), row("streaming", None, [9.0], [1])]
    rows += [row("streaming", False, [3.0, 2.0], [0, 0]), row("streaming", False, [2.5], [0])]
    rows += [row("retrieval", False, [0.1, 0.2], [1, 1]), row("retrieval", False, [0.3], [1])]
    sizes = [(round(found.size, 6), found.shown) for found in effects(rows)]
    assert sizes == [(1.9, True), (0.0, True), (2.3, True), (0.2, True)]
    guessed = [row("streaming", False, [5.0, 5.1], [0, 0]), row("retrieval", False, [4.8, 4.9], [0, 0])]
    assert [found.shown for found in effects(guessed)] == [True, True, False]  # better is not known
    assert [found.shown for found in effects(rows[:3] + [row("streaming", False, [0.4, 0.3], [1, 1])])][1] is False
    assert list(effects(rows[:2])) == []  # nothing has left the cache
