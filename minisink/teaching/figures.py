"""The figures of a lesson."""

from ..system.plots import look


def for_a_lesson():
    """Return ``matplotlib.pyplot``, set up for a projector; without it, raise ValueError naming the extra."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise ValueError("the figures of a lesson need matplotlib: pip install 'minisink[tutorials]'") from None
    pyplot.rcParams.update(look() | {"figure.figsize": (11, 5), "figure.constrained_layout.use": True})
    return pyplot
