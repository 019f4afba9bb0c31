"""A teacher's own tasks, as in docs/check.md: the file is the teacher's, so it is run without walls."""

import inspect
import runpy
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..wrong_turns.turn import WrongTurn
from .tasks import MOST_POINTS, TASKS, Task
from .words import of_all, show


def read_tasks(path):
    """Return the tasks of a teacher's file by name; ValueError if it cannot be run, or a task is incomplete."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give a Python file with POINTS, functions and their cases")
    try:
        names = runpy.run_path(str(path))
    except Exception as error:
        raise ValueError(f"{path}: cannot be run ({type(error).__name__}: {error})") from None
    points = names.get("POINTS")
    if not isinstance(points, dict) or not points:
        raise ValueError(f'{path}: POINTS is {points!r}; it must give the points of each task, as in {{"relu": 2}}')
    return {name: _task(path, name, n, names) for name, n in points.items()}


def _task(path, name, points, names):
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{path}: {name!r} is not the name of a function")
    if isinstance(points, bool) or not isinstance(points, int) or not 0 <= points <= MOST_POINTS:
        raise ValueError(f"{path}: POINTS gives {name} {points!r}; a whole number from 0 to {MOST_POINTS} is needed")
    if name in TASKS:
        if name in names:
            raise ValueError(f"{path}: {name} is a task of minisink's own; leave the function out, or rename it")
        return replace(TASKS[name], points=points)
    for part, what in ((name, "the right function"), (f"{name}_cases", "a function of a generator")):
        if not callable(names.get(part)):
            raise ValueError(f"{path}: {part} is missing; {what} is needed")
    turns = tuple(WrongTurn(title, [], each) for title, each in dict(names.get(f"{name}_turns", {})).items())
    parameters = list(inspect.signature(names[name]).parameters)

    def right(*args):
        return names[name](**dict(zip(parameters, map(copy, args), strict=True)))  # a function may change them

    def draw(random):
        return [{key: _plain(x) for key, x in case.items()} for case in names[f"{name}_cases"](random)]

    task = Task(name, " ".join(parameters), right, draw, of_all, turns, points=points)
    task.valid = lambda case: _numbers(task, case) is None
    try:
        drawn = task.draw(np.random.default_rng(0))
    except Exception as error:
        raise ValueError(f"{path}: {name}_cases: {type(error).__name__}: {error}") from None
    others = [case for case in drawn if sorted(case) != sorted(parameters)]
    why = "no cases" if not drawn else next(filter(None, (_numbers(task, case) for case in drawn)), None)
    if others:
        why = f"a case has the arguments {', '.join(others[0])}; the function has {', '.join(parameters)}"
    if why:
        raise ValueError(f"{path}: {name}_cases: {why}")
    return task


def _numbers(task, case):
    """Return why the right function does not give numbers for a case, or None."""
    try:
        found = task.expected(case)
    except Exception as error:
        return f"the right function fails on {case}: {type(error).__name__}: {error}"
    return None if np.isfinite(found).all() else f"the right function returns {show(found)} for {case}"


def _plain(x):
    """Return an argument as an array, or in a form that JSON can hold."""
    return x.item() if isinstance(x, np.generic) else list(x) if isinstance(x, tuple) else x
