"""Compares answers with the reference, finds the smallest failing case, and names the wrong turn behind it."""

import time
from dataclasses import dataclass

import numpy as np

from ..system.terminal import count
from ..wrong_turns import LEFT_OVER
from .child import answer
from .compare import equal, in_half, right_rows
from .tasks import TASKS, as_plain, cases_of, heads_of, in_style, same, simpler
from .words import cache_of, one_line, short

SHRINKING = 10  # seconds at most
ALIKE = 0.95  # of the answers, where many a wrong turn gives the same now and then
OUT_OF_RANGE = ("OverflowError", "ZeroDivisionError")  # what `math` raises
GROWTH = 1.4  # of a state between the middle and the end of a long text


@dataclass
class Outcome:
    """The result of one case."""

    value: np.ndarray | None = None
    raised: str | None = None
    error: str = ""
    line: int | None = None
    reached: int = 0  # the last line of the function itself that was begun, where it raised
    sizes: list | None = None  # numbers in the state after each step
    died: str | None = None

    @property
    def grows(self):
        """Whether the state holds ever more, long after the cache is full."""
        sizes = self.sizes or []
        half = len(sizes) // 2
        return len(sizes) >= 40 and sizes[half] > 0 and sizes[-1] > GROWTH * sizes[half]

    @property
    def is_final(self):
        """Whether another try would be pointless."""
        return bool(self.died) or self.raised in ("NotImplementedError", "MemoryError")

    @property
    def is_out_of_range(self):
        """Whether a number was too large, or zero where it must not be: `math` raises, NumPy says infinity or NaN."""
        if self.raised is None:
            return self.value is not None and not np.isfinite(self.value).all()
        return self.raised in OUT_OF_RANGE or self.error.startswith(("math domain error", "expected a positive"))

    def is_right(self, task, expected):
        """Whether it is what the reference says."""
        return self.raised is None and equal(self.value, expected, task.kind) and not self.grows

    def is_like(self, task, other):
        """Whether two wrong outcomes are one."""
        if self.died or other.died or self.grows != other.grows:
            return False
        if self.raised != other.raised:
            return self.is_out_of_range and other.is_out_of_range
        if other.value is None:
            return self.value is None
        return equal(self.value, other.value, task.kind)


def outcome_of(task, case, raw, style="arrays"):
    """Read what `child.answer` gave; anything unreadable is a wrong answer."""
    try:
        raised, line = raw.get("raised"), raw.get("line")
        outcome = Outcome(raised=None if raised is None else one_line(raised), error=one_line(raw.get("error", "")))
        outcome.line = line if isinstance(line, int) else None
        outcome.reached = int(raw.get("reached") or 0)
        if task.name == "step":
            outs = [_array(out) for out in raw["outs"]]
            outcome.value = np.array([out.reshape(-1) for out in outs]) if outs else None
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
    """Numbers of blocks; or of all the keys in them, which says the same."""
    n_keys, block = len(case["keys"]), case["block"]
    whole = np.sort(numbers.reshape(-1))
    if whole.size and np.isfinite(whole).all() and (whole.size > case["k"] or whole[-1] >= -(-n_keys // block)):
        blocks = np.unique(whole // block)
        members = [i for i in range(n_keys) if i // block in blocks]
        if np.array_equal(members, whole):
            return blocks
    return numbers


def _array(encoded):
    shape, _, numbers = encoded
    return np.array(numbers, np.float64).reshape(shape)


@dataclass
class Try:
    """One way to call a function: its style of arguments, and the stand-ins for its other parts."""

    style: str
    stand_ins: tuple
    outcomes: list
    first: int | None  # that is wrong


def judge(name, ask, seed=0, hint=None, *, given=(), passed=(), tasks=TASKS):
    """Judge one task by ``ask(name, cases, style, stand_ins) -> Answers``; return its row of ``check --json``.

    `given` are the tasks that the file defines, `passed` those that were right; the others come from the reference.
    """
    task = tasks[name]
    cases = cases_of(task, seed)
    best: Try | None = None
    for tried in _tries(task, cases, ask, given, passed):
        heads = heads_of(task, seed) if tried.first is None else []
        shared = _with_heads(task, heads, tried, ask) if heads else None
        if shared is not None:
            cases, best = heads, shared
            break
        if tried.first is None:
            note = f"; with the checker's {', '.join(tried.stand_ins)} in place of yours" if tried.stand_ins else ""
            return result(name, "passed", f"{count(len(cases), 'case')}{note}")
        if best is None or _progress(tried) > _progress(best):
            best = tried
    assert best is not None and best.first is not None
    if _depends_on_what_came_before(task, cases[best.first], best, ask):
        case, outcome = _to_the_first_wrong_step(task, cases[best.first], best.outcomes[best.first])
        turn = LEFT_OVER
    else:
        case, outcome = _shrunk(task, cases[best.first], best, ask)
        case, outcome, turn = diagnosed_as(task, case, outcome, list(zip(cases, best.outcomes, strict=False)))
    expected = task.expected(case)
    message = "\n".join([sentence(task, case, outcome, expected), *hinted(turn, hint, outcome)])
    shown = {"arguments": as_plain(case), "expected": expected.tolist(), "style": best.style}
    shown["got"] = None if outcome.value is None else outcome.value.tolist()
    return result(name, "failed", message, shown, turn and turn.title)


def hinted(turn, hint, outcome):
    """Return the text below a failing case: the wrong turn's name, or the hints, the last of which names it.

    >>> hinted(LEFT_OVER, 1, Outcome())
    ['hint 1: Where does your function keep what it knows?']
    """
    if turn is None:
        is_answer = outcome.raised is None and outcome.died is None
        return ["no hint: it does not look like any wrong turn known here"] if hint and is_answer else []
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
    """Yield the ways to call a function, likeliest first, each tried in turn."""
    open_parts = tuple(need for need in task.needs if need not in passed)
    orders = [()]
    if open_parts:
        orders = [open_parts, ()] if set(open_parts) & set(defined) else [open_parts]
    for stand_ins in orders:
        for style in task.styles:
            reply = ask(task.name, cases, style, stand_ins)
            used = tuple(part for part in stand_ins if part in defined)
            outcomes = [outcome_of(task, case, raw, style) for case, raw in zip(cases, reply.answers, strict=False)]
            if len(outcomes) < len(cases):
                outcomes.append(Outcome(died=reply.died or "it gave no answer"))
            pairs = zip(cases, outcomes, strict=False)
            wrong = (i for i, (case, outcome) in enumerate(pairs) if not outcome.is_right(task, task.expected(case)))
            first = next(wrong, None)
            yield Try(style, used if first is None else stand_ins, outcomes, first)
            if first is not None and outcomes[first].is_final:
                break


def _with_heads(task, cases, tried, ask):
    """Ask a right function with several heads; return a `Try` if it takes them, and shares keys among them wrongly.

    One that is not right with as many heads of keys as of queries, or refuses fewer, is for one head, and that is all
    that is asked for.
    """
    reply = ask(task.name, cases, tried.style, tried.stand_ins)
    outcomes = [outcome_of(task, *pair, tried.style) for pair in zip(cases, reply.answers, strict=False)]
    if not outcomes or not outcomes[0].is_right(task, task.expected(cases[0])):
        return None
    for i, (case, outcome) in enumerate(zip(cases, outcomes, strict=False)):
        expected = task.expected(case)
        has_its_shape = outcome.raised is None and outcome.value is not None and outcome.value.shape == expected.shape
        if has_its_shape and not outcome.is_right(task, expected):
            return Try(tried.style, tried.stand_ins, outcomes, i)
    return None


def _progress(tried):
    """Rank a try: further is better, by cases and lines; an answer says more than an error, even one of no use."""
    outcome = tried.outcomes[tried.first]
    is_answer = outcome.raised is None and outcome.died is None
    return (is_answer, tried.first, outcome.raised == "Unusable", outcome.reached)


def _depends_on_what_came_before(task, case, tried, ask):
    """Whether a question that failed gets another answer when it is asked alone."""
    outcome = tried.outcomes[tried.first]
    if outcome.is_final or not tried.first:
        return False
    alone = ask(task.name, [case], tried.style, tried.stand_ins).answers
    return bool(alone) and not outcome_of(task, case, alone[0], tried.style).is_like(task, outcome)


def _shrunk(task, case, tried, ask):
    """Find the smallest case that fails as this one does, and what came of it."""
    outcome = tried.outcomes[tried.first]
    if outcome.is_final or outcome.grows:
        return case, outcome
    case, outcome = _to_the_first_wrong_step(task, case, outcome)
    stop = time.monotonic() + SHRINKING
    while time.monotonic() < stop:
        smaller = [each for each in simpler(task, case) if task.valid(each) and not same(each, case)][:60]
        reply = ask(task.name, smaller, tried.style, tried.stand_ins) if smaller else None
        for each, raw in zip(smaller, reply.answers if reply else (), strict=False):
            smaller_outcome = outcome_of(task, each, raw, tried.style)
            if smaller_outcome.raised == outcome.raised and not smaller_outcome.is_right(task, task.expected(each)):
                case, outcome = _to_the_first_wrong_step(task, each, smaller_outcome)
                break
        else:
            break
    return case, outcome


def _to_the_first_wrong_step(task, case, outcome):
    """Cut a text after the first wrong output."""
    if task.name != "step" or outcome.raised is not None or outcome.value is None:
        return case, outcome
    expected = task.expected(case)
    if outcome.value.shape != expected.shape:
        return case, outcome
    n = int(np.argmin(right_rows(outcome.value, expected))) + 1
    short = case | {name: case[name][:n] for name in ("q", "k", "v")}
    return short, Outcome(value=outcome.value[:n], sizes=(outcome.sizes or [])[:n])


def diagnosed_as(task, case, outcome, others):
    """Find the wrong turn that gives this very answer: (case, outcome, turn or None).

    A small case cannot always tell: of the turns that agree on it the one is taken that explains most of the wrong
    answers among `others`, (case, outcome) each, and half of them at least. One that explains more, though it does not
    agree on this case, is shown on the first on which it does. A few blocks out of a few are soon alike: there it must
    agree on nearly all.
    """
    right, wrong = [], []
    for each, result in others:
        (right if result.is_right(task, task.expected(each)) else wrong).append((each, result))
    best, most, shown_on = None, (0, False, 0), None
    for turn in task.turns:
        explained = _explained(task, turn, wrong, len(wrong) // 2)
        if not explained:
            continue
        agreed = len(explained) + sum(result.is_like(task, _by_turn(task, turn, each)) for each, result in right)
        if task.kind == "set" and agreed < ALIKE * len(others):
            continue
        agrees_here = outcome.is_like(task, _by_turn(task, turn, case))
        if (len(explained), agrees_here, agreed) > most:
            best, most = turn, (len(explained), agrees_here, agreed)
            shown_on = None if agrees_here else explained[0]
    if shown_on is not None:
        case, outcome = _to_the_first_wrong_step(task, *shown_on)
    return case, outcome, best


def _explained(task, turn, answers, misses):
    """Return the answers that this mistake reproduces; [] after more than `misses` misses."""
    explained = []
    for case, outcome in answers:
        if outcome.is_like(task, _by_turn(task, turn, case)):
            explained.append((case, outcome))
        else:
            misses -= 1
        if misses < 0:
            return []
    return explained


def _by_turn(task, turn, case):
    with np.errstate(all="ignore"):
        return outcome_of(task, case, answer(task.name, turn.function, in_style(task, case, "arrays")))


def sentence(task, case, outcome, expected):
    """Say what is wrong, in one line."""
    if outcome.raised == "NotImplementedError":
        return "not written yet (NotImplementedError)"
    if outcome.died:
        return f"{outcome.died}, for {_call(task, case)}"
    if outcome.raised in ("Unusable", "Unreadable"):
        return f"{outcome.error}, for {_call(task, case)}"
    if outcome.raised:
        where = f" (line {outcome.line})" if outcome.line else ""
        return f"{outcome.raised}{': ' if outcome.error else ''}{outcome.error}{where}, for {_call(task, case)}"
    if outcome.value is None or np.squeeze(outcome.value).shape != np.squeeze(expected).shape:
        if task.kind == "numbers":
            shape = None if outcome.value is None else outcome.value.shape
            return f"your answer has the shape {shape}; expected {expected.shape}, for {_call(task, case)}"
        return task.word(case, outcome.value, expected)
    if outcome.grows:
        sizes = outcome.sizes
        half = len(sizes) // 2
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
    """Show the arguments; of a step those of its text, token by token."""
    names, shown = [name for name in task.params if name in case], []
    if task.name == "step":
        T, D = len(case["q"]), case["q"].shape[-1]
        shown = [f"{count(T, 'token')} of {count(D, 'channel')}"]
        names = names if case["q"].any() else names[3:]
    return ", ".join(shown + [f"{name} = {short(case[name])}" for name in names])
