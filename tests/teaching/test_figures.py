"""The figures of a lesson."""

import sys

import pytest

from minisink.teaching.figures import for_a_lesson


def test_a_lesson_gets_large_letters_or_the_name_of_the_extra(monkeypatch):
    import matplotlib

    with matplotlib.rc_context():
        assert for_a_lesson().rcParams["font.size"] >= 16
        assert len({style["linestyle"] for style in matplotlib.rcParams["axes.prop_cycle"]}) >= 4
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install 'minisink\[tutorials\]'"):
        for_a_lesson()
