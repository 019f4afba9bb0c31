"""Tables 2 and 3 in small: each cell against the loss it stands for, and the tables of the shipped models."""

import numpy as np
import pytest
import tiny
from tiny import public

import minisink
from minisink import Recompute, Streaming, gpt2
from minisink.commands.parser import main
from minisink.experiments import sink_count

TEXTS = [tiny.ids(30, 1), tiny.ids(19, 2)]


@pytest.mark.parametrize("bos", [None, int(TEXTS[0][0])])
def test_a_cell_is_the_perplexity_of_all_texts_together(bos):
    """Streaming or window attention in a cache of one size, or re-computed with the first token if that is ``<s>``."""
    model = public(tiny.make(bos=bos))
    rows = list(sink_count.run(model, TEXTS, caches=(5, 9), sinks=(0, 1, 3)))
    assert [(row["cache"], row["n_sinks"]) for row in rows] == [
        (c, n) for c in (5, 9) for n in (0, 1, 3, "re-computed")
    ]
    for row in rows:
        cache, n = row["cache"], row["n_sinks"]
        lead = [ids[:1] if bos is not None and ids[0] == bos else () for ids in TEXTS]
        if n == "re-computed":
            methods = [Recompute(cache, lead=tuple(first)) for first in lead]
        else:
            methods = [Streaming(n, cache - n)] * 2
        losses = [minisink.token_nll(model, *both) for both in zip(TEXTS, methods, strict=True)]
        np.testing.assert_allclose(row["perplexity"], minisink.perplexity(np.concatenate(losses)))
        np.testing.assert_allclose(row["nll"], np.concatenate([nll[cache:] for nll in losses]))


def test_what_cannot_be_is_not_a_number():
    """A cache that its sinks fill, and positions that a GPT-2 has not learned."""
    rows = sink_count.run(public(tiny.make(gpt2, max_positions=8)), TEXTS, caches=(4, 9), sinks=(0, 4))
    missing = {(row["cache"], row["n_sinks"]) for row in rows if np.isnan(row["perplexity"])}
    assert missing == {(4, 4), (9, 0), (9, 4), (9, "re-computed")}


def test_the_table_has_a_row_a_cache(capsys):
    """On the sample text, if no other is given."""
    assert main(["reproduce", "sink-count", "--tokens", "80", "--caches", "16", "32", "--sinks", "0", "1"]) == 0
    lines = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert lines[0].split() == ["cache", "0", "sinks", "1", "sink", "re-computed"]
    assert [line.split()[0] for line in lines[2:]] == ["16", "32"]
