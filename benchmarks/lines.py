"""Where a function's time goes, line by line in minisink, for steps too short for any other profiler."""

import linecache
import sys
import time
from collections import Counter
from pathlib import Path

import minisink

PACKAGE = str(Path(minisink.__file__).parent)


def time_of_lines(function, *, seconds=1.0, rounds=5):
    """Time every line of minisink that a function runs.

    Python calls a tracer before each line. The time between two calls belongs to the line between them, minus what the
    tracer itself costs. We take that cost to be the same for every line, and such that the sum is the untraced time.

    Parameters
    ----------
    function : callable
        Called without arguments.
    seconds : float
        Roughly how long it runs, traced and untraced together.
    rounds : int
        How many stretches of each, alternating.

    Returns
    -------
    list of tuple of str, float
        ``"file: the line"`` and its seconds per call, longest first.
    """
    spent, visits, here = Counter(), Counter(), ("", 0)
    clock = time.perf_counter
    began = 0.0

    def tracer(frame, event, _):
        nonlocal here, began
        spent[here] += clock() - began
        visits[here] += 1
        inside = frame.f_code.co_filename.startswith(PACKAGE)
        if inside:  # what a line calls elsewhere counts as part of it
            frame = frame.f_back if event == "return" else frame
            here = frame.f_code.co_filename, frame.f_lineno
        began = clock()
        return tracer if inside else None

    def run(n_calls):
        start = clock()
        for _ in range(n_calls):
            function()
        return clock() - start

    run(1)
    n_calls = max(1, int(seconds / (3 * rounds * run(1))))
    untraced = 0.0
    for _ in range(rounds):
        untraced += run(n_calls)
        before, here, began = sys.gettrace(), ("", 0), clock()
        sys.settrace(tracer)
        try:
            run(n_calls)
        finally:
            sys.settrace(before)
    n_calls *= rounds
    overhead = (sum(spent.values()) - untraced) / sum(visits.values())
    found = {line: max(0.0, spent[line] - overhead * visits[line]) for line in spent if line[0].startswith(PACKAGE)}
    scale = untraced / n_calls / sum(found.values())
    return [(_name(*line), found[line] * scale) for line in sorted(found, key=found.get, reverse=True)]


def _name(file, number):
    return f"{Path(file).name}: {linecache.getline(file, number).split('  #')[0].strip()}"
