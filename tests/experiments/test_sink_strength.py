"""The sinks of the shipped models, as their READMEs state them."""

import re

import numpy as np
import pytest
import tiny

import minisink
from minisink.commands.parser import main
from minisink.experiments.sink_strength import run
from minisink.system.resources import shipped, shipped_names


@pytest.mark.parametrize("name", shipped_names())
def test_the_readme_says_what_is_printed(name, capsys):
    assert main(["reproduce", "sink-strength", "--model", name]) == 0
    printed = capsys.readouterr().out
    stated = (shipped(name) / "README.md").read_text(encoding="utf-8")
    numbers = re.compile(r"\d+(?:\.\d+)?")
    where = stated.index(f"{name}: sink rate")
    wanted = [float(x) for x in numbers.findall(stated[where : stated.index("```", where)])]
    assert [float(x) for x in numbers.findall(printed)] == pytest.approx(wanted, rel=0.01, abs=0.051)


def test_pieces_are_weighed_alike():
    """Two pieces give the mean of each alone, and a text shorter than a piece is refused."""
    model = minisink.Model(tiny.make(bos=0).config, tiny.make(bos=0).weights)
    ids = np.arange(14) % model.config.vocab_size
    both = run(model, ids, length=8)
    alone = [run(model, part, length=8) for part in (ids[:7], ids[7:])]
    assert both["n_texts"] == 2
    for key in ("sink_rate", "weight", "residual", "value", "massive"):
        np.testing.assert_allclose(both[key], (alone[0][key] + alone[1][key]) / 2)
    with pytest.raises(ValueError, match="the text has 6 tokens; a piece takes 7"):
        run(model, ids[:6], length=8)
