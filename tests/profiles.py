"""How many cases a property draws: few in the run that everybody makes, all of them with ``--full``."""

import os

from hypothesis import settings

FULL = "MINISINK_FULL"  # set by conftest for this run and the processes it starts


def examples(n, *, least=5, **others):
    """Return hypothesis settings of `n` examples with ``--full``, of a tenth (and no fewer than `least`) without."""
    return settings(max_examples=n if FULL in os.environ else max(least, n // 10), **others)
