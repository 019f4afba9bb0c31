"""Patterns of every head as a picture."""

import pytest
import tiny

import minisink
from minisink import gpt2, llama
from minisink.experiments import inside
from minisink.experiments.inside import draw_inspection


@pytest.mark.parametrize("arch", [llama, gpt2])
@pytest.mark.slow
def test_every_head_is_drawn(tmp_path, arch):
    """A picture of weights, a pattern and norms."""
    model = tiny.make(arch, n_layers=2)
    public = minisink.Model(model.config, model.weights, name="tiny")
    patterns = [layer["pattern"] for layer in inside.look_inside(public, tiny.ids(7))["layers"]]
    summary = inside.summary(inside.look_inside(public, tiny.ids(7)))
    draw_inspection(tmp_path / "heads.png", patterns, summary, tokens=[*"abcdef", "a $word"], name="tiny")
    assert (tmp_path / "heads.png").read_bytes().startswith(b"\x89PNG")
