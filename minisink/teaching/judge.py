"""Compares answers with the reference, finds the smallest failing case, and names the wrong turn behind it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..system.terminal import count
from ..wrong_turns import LEFT_OVER
from .child import answer
from .compare import equal, in_half, right_rows
from .tasks import TASKS, as_plain, cases_of, heads_of, in_style, same, simpler
from .words import cache_of, one_line, short

SHRINKING = 10  # seconds at most
ALIKE = 0.95  # of the answers, where many wrong turns agree now and then
OUT_OF_RANGE = ("OverflowError", "ZeroDivisionError")  # what `math` raises
GROWTH = 1.4  # of a state between the middle and the end of a long text
NO_NAME = ("Died", "Unusable", "Unreadable")  # failures of a child that its own message explains
FINAL = ("Died", "NotImplementedError", "MemoryError")  # another try would be pointless


@dataclass
class Outcome:
    """The result of one case."""

    value: np.ndarray | None = None
    raised: str | None = None
    error: str = ""
    line: int | None = None
    reached: int = 0  # the last line of the function itself that was begun, if it raised
    sizes: Sequence = ()  # numbers in the state after each step

    @property
    def grows(self):
        """Whether the state keeps growing long after the cache is full."""
        sizes, half = self.sizes, len(self.sizes) // 2
        return len(sizes) >= 40 and sizes[half] > 0 and sizes[-1] > GROWTH * sizes[half]

    @property
    def is_out_of_range(self):
        """Whether a number was too large, or zero where it may not be; `math` raises, NumPy returns inf or NaN."""
        if self.raised is None:
            return self.value is not None and not np.isfinite(self.value).all()
        return self.raised in OUT_OF_RANGE or self.error.startswith(("math domain error", "expected a positive"))

    def is_right(self, task, case):
        """Whether the reference gives the same."""
        return self.raised is None and equal(self.value, task.expected(case), task.kind) and not self.grows

    def is_like(self, task, other):
        """Whether two wrong outcomes are the same."""
        if self.grows != other.grows:
            return False
        if self.raised != other.raised:
            return self.is_out_of_range and other.is_out_of_range
        return self.value is None if other.value is None else equal(self.value, other.value, task.kind)


def outcome_of(task, case, raw, style="arrays"):
    """Read a reply of `child.answer`; anything unreadable is a wrong answer."""
    try:
        raised, line = raw.get("raised"), raw.get("line")
        outcome = Outcome(raised=None if raised is None else one_line(raised), error=one_line(raw.get("error", "")))
        outcome.line = line if isinstance(line, int) else None
        outcome.reached = int(raw.get("reached") or 0)
        if task.name == "step":
            outs = [_array(out).reshape(-1) for out in raw["outs"]]
            outcome.value = np.array(outs) if outs else None
            outcome.sizes = [int(size) for size in raw["sizes"]]
        elif outcome.raised is None:
            outcome.value = _array(raw["value"])
            if task.kind != "numbers" and raw["value"][1] == "b" and outcome.value.shape == (case.get("n_slots"),):
                outcome.value = np.flatnonzero(outcome.value).astype(np.float64)  # a mask says the same
            if style == "heads first" and outcome.value.ndim == 3 and case["q"].ndim == 3:
                outcome.value = outcome.value.swapaxes(0, 1)
            if task.name == "retrieve":
                outcome.value = _blocks(case, outcome.value)
        return outcome
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return Outcome(raised="Unreadable", error="its answers are not of one shape")


def _blocks(case, numbers):
    """Return block numbers; if `numbers` are all the keys of some blocks, return the numbers of those blocks."""
    n_keys, block = len(case["keys"]), case["block"]
    whole = np.sort(numbers.reshape(-1))
    if whole.size and np.isfinite(whole).all() and (whole.size > case["k"] or whole[-1] >= -(-n_keys // block)):
        blocks = np.unique(whole // block)
        if np.array_equal([i for i in range(n_keys) if i // block in blocks], whole):
            return blocks
    return numbers


def _array(encoded):
    shape, _, numbers = encoded
    return np.array(numbers, np.float64).reshape(shape)


@dataclass
class Try:
    """One way to call a function: its style of arguments, and the stand-ins for the other parts."""

    ask: Callable  # from cases to outcomes
    style: str
    stand_ins: tuple
    cases: list
    outcomes: list
    first: int | None  # index of the first wrong outcome


def judge(name, ask, seed=0, hint=None, *, given=(), passed=(), tasks=TASKS):
    """Judge one task by ``ask(name, cases, style, stand_ins) -> Answers``; return its row of ``check --json``.

    `given` are the tasks that the file defines, `passed` those that were right; the others come from the reference.
    """
    task = tasks[name]
    tries = list(_tries(task, cases_of(task, seed), ask, given, passed))
    best = _with_heads(task, heads_of(task, seed), tries[-1]) if tries[-1].first is None else max(tries, key=_progress)
    if best.first is None:
        note = f"; with the checker's {', '.join(best.stand_ins)} in place of yours" if best.stand_ins else ""
        return result(name, "passed", f"{count(len(best.cases), 'case')}{note}")
    case, outcome = best.cases[best.first], best.outcomes[best.first]
    alone = best.ask([case])[0] if best.first and outcome.raised not in FINAL else None
    if alone and alone.raised != "Died" and not alone.is_like(task, outcome):
        case, outcome = _to_the_first_wrong_step(task, case, outcome)
        turn = LEFT_OVER
    else:
        case, outcome = _shrunk(task, case, outcome, best.ask)
        case, outcome, turn = diagnosed_as(task, case, outcome, list(zip(best.cases, best.outcomes, strict=False)))
    expected = task.expected(case)
    message = "\n".join([sentence(task, case, outcome, expected), *hinted(turn, hint, outcome)])
    shown = {"arguments": as_plain(case), "expected": expected.tolist(), "style": best.style}
    shown["got"] = None if outcome.value is None else outcome.value.tolist()
    return result(name, "failed", message, shown, turn and turn.title)


def hinted(turn, hint, outcome):
    """Return the text below a failing case: the wrong turn's name, or the hints, the last of which names it.

    >>> hinted(LEFT_OVER, 1, Outcome())
    ['hint 1: Where does your function keep what it remembers?']
    """
    if turn is None:
        return ["no hint: it does not look like any wrong turn known here"] * bool(hint and outcome.raised is None)
    name = f"looks like: {turn.title}"
    if hint is None:
        return [name]
    hints = [f"hint {i}: {text}" for i, text in enumerate(turn.hints[:hint], 1)]
    return [*hints[:2], name, *hints[2:]] if hint == 3 else hints


def result(name, status, message, case=None, diagnosed=None):
    """Return a task's row."""
    row = {"task": name, "status": status, "score": int(status == "passed"), "max_score": 1}
    return row | {"message": message, "case": case, "diagnosis": diagnosed, "same_as": None}


def _tries(task, cases, ask, defined, passed):
    """Yield the ways to call a function, likeliest first, each tried in turn until one is right."""
    open_parts = tuple(need for need in task.needs if need not in passed)
    orders = [open_parts, ()] if set(open_parts) & set(defined) else [open_parts]
    for stand_ins in orders:
        for style in task.styles:
            ask_so = partial(_outcomes, task, ask, style, stand_ins)
            outcomes = ask_so(cases)
            first = next((i for i, each in enumerate(outcomes) if not each.is_right(task, cases[i])), None)
            yield Try(ask_so, style, tuple(part for part in stand_ins if part in defined), cases, outcomes, first)
            if first is None:
                return
            if outcomes[first].raised in FINAL:
                break


def _outcomes(task, ask, style, stand_ins, cases):
    reply = ask(task.name, cases, style, stand_ins)
    outcomes = [outcome_of(task, *pair, style) for pair in zip(cases, reply.answers, strict=False)]
    died = Outcome(raised="Died", error=reply.died or "it gave no answer")
    return outcomes + [died] * (len(outcomes) < len(cases))


def _with_heads(task, cases, tried):
    """Try a right function with several heads; return that `Try` if it accepts them but shares keys among them wrongly.

    A function that is wrong with as many key heads as query heads, or rejects fewer, is written for one head, which is
    all that the task asks for.
    """
    outcomes = tried.ask(cases) if cases else []
    for i, (case, outcome) in enumerate(zip(cases, outcomes, strict=False)):
        if not outcome.is_right(task, case):
            if i == 0:
                break
            if outcome.raised is None and np.shape(outcome.value) == task.expected(case).shape:
                return replace(tried, cases=cases, outcomes=outcomes, first=i)
    return tried


def _progress(tried):
    """Rank a try by how far it got, in cases and lines; an answer, even a useless one, says more than an error."""
    outcome = tried.outcomes[tried.first]
    return (outcome.raised is None, tried.first, outcome.raised == "Unusable", outcome.reached)


def _shrunk(task, case, outcome, ask):
    """Find the smallest case that fails in the same way, and its outcome."""
    if outcome.raised in FINAL or outcome.grows:
        return case, outcome
    case, outcome = _to_the_first_wrong_step(task, case, outcome)
    stop = time.monotonic() + SHRINKING
    while time.monotonic() < stop:
        smaller = [each for each in simpler(task, case) if task.valid(each) and not same(each, case)][:60]
        for each, found in zip(smaller, ask(smaller) if smaller else (), strict=False):
            if found.raised == outcome.raised and not found.is_right(task, each):
                case, outcome = _to_the_first_wrong_step(task, each, found)
                break
        else:
            break
    return case, outcome


def _to_the_first_wrong_step(task, case, outcome):
    """Cut a text after the first wrong output."""
    expected = task.expected(case)
    if task.name == "step" and outcome.raised is None and np.shape(outcome.value) == expected.shape:
        n = int(np.argmin(right_rows(outcome.value, expected))) + 1
        case = case | {name: case[name][:n] for name in ("q", "k", "v")}
        outcome = Outcome(value=outcome.value[:n], sizes=outcome.sizes[:n])
    return case, outcome


def diagnosed_as(task, case, outcome, others):
    """Find the wrong turn that gives exactly this answer: (case, outcome, turn or None).

    A small case cannot always decide, so of the turns that agree on it, take the one that explains the most wrong
    answers among `others`, (case, outcome) each, and at least half of them. A turn that explains more, but does not
    agree on this case, is shown on the first case where it does. A few blocks chosen from a few are often the same by
    chance, so there a turn must agree on nearly all cases.
    """

    def is_by(turn, case, outcome):
        return outcome.is_like(task, _by_turn(task, turn, case))

    wrong = [(each, result) for each, result in others if not result.is_right(task, each)]
    found = []
    for turn in task.turns:
        explained = [pair for pair in wrong if is_by(turn, *pair)]
        if not explained or 2 * len(explained) < len(wrong):
            continue
        agreed = sum(is_by(turn, *pair) for pair in others)
        if task.kind != "set" or agreed >= ALIKE * len(others):
            found.append(((len(explained), is_by(turn, case, outcome), agreed), turn, explained[0]))
    if not found:
        return case, outcome, None
    (_, agrees_here, _), turn, shown_on = max(found, key=lambda each: each[0])
    return *((case, outcome) if agrees_here else _to_the_first_wrong_step(task, *shown_on)), turn


def _by_turn(task, turn, case):
    with np.errstate(all="ignore"):
        return outcome_of(task, case, answer(task.name, turn.function, in_style(task, case, "arrays")))


def sentence(task, case, outcome, expected):
    """Say what is wrong, in one line."""
    if outcome.raised == "NotImplementedError":
        return "not written yet (NotImplementedError)"
    if outcome.raised in NO_NAME:
        return f"{outcome.error}, for {_call(task, case)}"
    if outcome.raised:
        where = f" (line {outcome.line})" if outcome.line else ""
        return f"{': '.join(filter(None, (outcome.raised, outcome.error)))}{where}, for {_call(task, case)}"
    if outcome.value is None or np.squeeze(outcome.value).shape != np.squeeze(expected).shape:
        if task.kind == "numbers":
            shape = None if outcome.value is None else outcome.value.shape
            return f"your answer has the shape {shape}; expected {expected.shape}, for {_call(task, case)}"
        return task.word(case, outcome.value, expected)
    if outcome.grows:
        sizes, half = outcome.sizes, len(outcome.sizes) // 2
        held = f"your state holds {sizes[half]} numbers, after {len(sizes)} {sizes[-1]}; a full cache must not grow"
        return f"after {half + 1} tokens with {cache_of(case)} {held}"
    got = outcome.value.reshape(expected.shape)
    text = task.word(case, got, expected)
    shown, _, wanted = text.rpartition("; expected ")
    off = np.abs(got - expected).max()
    if task.kind == "numbers" and in_half(got, expected):
        return f"{text} (off by {off:.1g}: half precision has three digits; compute in float32 or float64)"
    return text + (f" (off by {off:.1g})" if shown.endswith(" " + wanted) else "")


def _call(task, case):
    """Show the arguments; for a step, those of its whole text."""
    names, shown = [name for name in task.params if name in case], []
    if task.name == "step":
        shown = [f"{count(len(case['q']), 'token')} of {count(case['q'].shape[-1], 'channel')}"]
        names = names if case["q"].any() else names[3:]
    return ", ".join(shown + [f"{name} = {short(case[name])}" for name in names])
