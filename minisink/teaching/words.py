"""A wrong answer in words: a sentence for each task, with the smallest case and what was expected."""

import numpy as np

from ..system.terminal import count, in_runs
from .compare import TOLERANCE, right_rows


def show(value, most=10):
    """Format numbers for a reader.

    >>> show(np.array([[1.0, 0.26894142], [np.inf, -2.5]]))
    '[[1, 0.2689], [inf, -2.5]]'
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        shown = [show(item, most) for item in value[:most]]
        return "[" + ", ".join(shown + ["..."] * (len(value) > most)) + "]"
    if isinstance(value, float):
        return f"{value + 0.0:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def short(value, most=3):
    """Format numbers; for a large array, only the first ones and the shape.

    >>> short(np.eye(4, 5))
    '[[1, 0, 0, ...], [0, 1, 0, ...], [0, 0, 1, ...], ...] of shape (4, 5)'
    """
    if np.size(value) <= 8:
        return show(value)
    return show(value, most) + (f" of shape {value.shape}" if max(np.shape(value)) > most else "")


def one_line(text):
    r"""Return text from a file as one printable line, which cannot look like a line of the report.

    >>> one_line("no\nlooks like: \x1b[31mright")
    'no looks like: [31mright'
    """
    return "".join(letter for letter in " ".join(str(text).split()) if letter.isprintable())


def cache_of(case):
    """Put a cache's sizes in words."""
    return f"{count(case['n_sinks'], 'sink')} and a window of {case['window']}"


def slots(values):
    """Format slots, long lists as runs."""
    return in_runs([int(x) if float(x).is_integer() else round(float(x), 4) for x in np.ravel(values)])


def of_all(case, got, expected):
    """Describe a whole answer and all its arguments."""
    arguments = ", ".join(f"{name} = {short(case[name]) if np.ndim(case[name]) else case[name]}" for name in case)
    return f"for {arguments} you gave {show(got)}; expected {show(expected)}"


of_softmax = of_softmax1 = of_all


def of_attend(case, got, expected):
    """Describe the first query that is wrong."""
    row, head = int(np.argmin(right_rows(got, expected))), ""
    if expected.ndim == 3:
        H, K = expected.shape[1], case["k"].shape[1]
        row, h = divmod(row, H)
        head = f" of head {h}" + (f" (of {H}, which share {count(K, 'key head')})" if K < H else "")
        got, expected = got[:, h], expected[:, h]
    seen = np.flatnonzero(case["visible"][row]).tolist()
    asked = f"query {row}{head} sees keys {seen}{_inputs(case, 'q', 'k', 'v')}"
    return f"{asked}; you gave it {show(got[row])}; expected {show(expected[row])}"


def of_rotate(case, got, expected):
    """Describe the first vector that is wrong."""
    row = int(np.argmin(right_rows(got, expected)))
    position, x = case["positions"][row], case["x"][row]
    asked = f"{show(x)} at position {position}, theta {show(case['theta'])}"
    return f"{asked}: you gave {show(got[row])}; expected {show(expected[row])}"


def of_survivors(case, got, expected):
    """Describe the slots that stay."""
    after = f"after {count(case['n_slots'], 'token')} with {cache_of(case)}"
    return f"{after} your cache kept {slots(got)}; expected {slots(expected)}"


def of_positions_of(case, got, expected):
    """Describe the positions."""
    tokens = f"the tokens {slots(case['token_index'])}, with {cache_of(case)}"
    return f"{tokens}: your positions are {slots(got)}; expected {slots(expected)}"


def of_step(case, got, expected):
    """Describe what a cache kept, if its values name the tokens, or else its output."""
    t = int(np.argmin(right_rows(got, expected[: len(got)])))
    after = f"after {count(t + 1, 'token')} with {cache_of(case)}"
    kept, right = (np.flatnonzero(np.abs(row) > 1e-7).tolist() for row in (got[t], expected[t]))
    if not names_tokens(case["v"]) or max(kept, default=0) > t:  # an output names no tokens
        return f"{after}{_inputs(case, 'q', 'k', 'v')}: your output is {show(got[t])}; expected {show(expected[t])}"
    if kept != right and np.isfinite(got[t]).all():
        return f"{after} your output looks at tokens {kept}; expected {right}"
    asked = f"{after}{_inputs(case, 'q', 'k')}: the weights on tokens {right}"
    return f"{asked} are {show(got[t][right])}; expected {show(expected[t][right])}"


def names_tokens(v):
    """Whether the values name their tokens: one-hot, in order."""
    return v.ndim == 2 and len(v) <= v.shape[1] and np.array_equal(v, np.eye(*v.shape))


def of_token_nll(case, got, expected):
    """Describe the first loss that is wrong."""
    t = int(np.argmin(np.abs(got - expected) <= TOLERANCE * np.maximum(np.abs(expected), 1e-3)))
    asked = f"token {t + 1} is {case['ids'][t + 1]}, the logits before it {show(case['logits'][t])}"
    return f"{asked}: your loss is {show(float(got[t]))} nats; expected {show(float(expected[t]))}"


def of_retrieve(case, got, expected):
    """Describe the blocks."""
    asked = f"of {count(len(case['keys']), 'key')} in blocks of {case['block']}, {case['window']} back, "
    asked += f"theta {show(case['theta'])}, the best {case['k']} for this query{_inputs(case, 'q', 'keys')}"
    return f"{asked}: you chose {slots(got)}; expected {slots(expected)}"


def _inputs(case, *names):
    return "".join(f", {name} = {short(case[name])}" for name in names)
