"""Every wrong turn is caught under its own name, on the smallest case, in words; right answers pass in any style."""

import functools
import math
import re

import numpy as np
import pytest
import styles
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import ops
from minisink.teaching import check_functions, reference
from minisink.teaching.child import answer, encode, numbers_in
from minisink.teaching.judge import Outcome, _by_turn, judge, outcome_of
from minisink.teaching.sandbox import Answers
from minisink.teaching.tasks import TASKS, cases_of, heads_of, in_style
from minisink.wrong_turns import HINTS, LEFT_OVER, TURNS, WRONG_TURNS
from minisink.wrong_turns.softmax import FROM_ZERO

PLAIN: dict = {}
exec(styles.TO_THE_LETTER, PLAIN)
EVERY = [(task, turn) for task, turns in TURNS.items() for turn in turns]
FIRST = [  # for the fast run: of the ways to take a turn one; of the caches, which tests/conformance has, the numbered
    turn
    for (task, title), turn in {(task, turn.title): turn for task, turn in reversed(EVERY)}.items()
    if task != "step" or "(wrong turn " in title
]


def judged(name, function, seed=0, hint=None):
    """A live function's row."""

    def ask(name, cases, style="arrays", stand_ins=()):
        return Answers([answer(name, function, in_style(TASKS[name], case, style)) for case in cases], {}, [], None)

    return judge(name, ask, seed, hint, passed=TASKS)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("task", "turn"),
    [pytest.param(*each, marks=[] if each[1] in FIRST else pytest.mark.slow) for each in EVERY],
    ids=lambda value: value if isinstance(value, str) else value.title,
)
def test_each_wrong_turn_is_caught_with_its_own_name(task, turn):
    row = judged(task, turn.function, seed=7)
    assert (row["status"], row["score"], row["diagnosis"]) == ("failed", 0, turn.title)
    assert row["message"].split("\n")[1:] == [f"looks like: {turn.title}"]


@pytest.mark.slow
@given(seed=st.integers(0, 10_000))
@examples(8)
def test_no_wrong_turn_passes_whatever_the_seed(seed):
    """Some case of each seed tells each turn from the right answer."""
    for name, turns in TURNS.items():
        drawn = cases_of(TASKS[name], seed) + heads_of(TASKS[name], seed)
        for turn in turns:
            assert any(not _by_turn(TASKS[name], turn, case).is_right(TASKS[name], case) for case in drawn), turn


def test_the_twenty_are_all_there():
    """Each number of the list once at least, with three hints, no two alike."""
    numbers = {int(number) for _, turn in EVERY for number in re.findall(r"\(wrong turn (\d+)\)$", turn.title)}
    assert numbers == set(range(1, 21))
    assert all(len(turn.hints) == len(set(turn.hints)) == 3 and all(turn.hints) for _, turn in EVERY)


@pytest.mark.parametrize("name", TASKS)
def test_the_reference_passes(name):
    row = judged(name, getattr(reference, name), seed=3)
    assert (row["status"], row["score"], row["case"], row["diagnosis"]) == ("passed", 1, None, None)


def test_the_sentence_of_the_smallest_case():
    """A cache that loses the oldest of its window too early is told so in words and slots."""
    row = judged(
        "survivors", lambda n, s, w: [i for i in range(n) if i < s or i >= n - w + (s == 2 and w == 3 and n > 5)]
    )
    assert row["message"].split("\n")[0] == (
        "after 6 tokens with 2 sinks and a window of 3 your cache kept [0, 1, 4, 5]; expected [0, 1, 3, 4, 5]"
    )
    assert row["case"]["arguments"] == {"n_slots": 6, "n_sinks": 2, "window": 3}
    assert row["diagnosis"] == TURNS["survivors"][1].title  # the one that gives this very answer


def test_a_step_is_told_which_tokens_it_kept():
    """Read off the outputs: their values name the tokens."""

    def step(state, q, k, v, n_sinks, window, theta):
        return reference.step(state, q, k, v, n_sinks, window + (n_sinks == 1 and window == 2), theta)

    said = judged("step", step)["message"].split("\n")[0]
    assert (
        said
        == "after 4 tokens with 1 sink and a window of 2 your output looks at tokens [0, 1, 2, 3]; expected [0, 2, 3]"
    )


def test_a_case_is_shrunk():
    """Whatever fails from a third key on is shown with three."""

    def softmax(x):
        return reference.softmax(x) * (1.0 if len(x) < 3 else 1.1)

    row = judged("softmax", softmax, seed=5)
    assert len(row["case"]["arguments"]["x"]) == 3 and set(row["case"]["arguments"]["x"]) == {0.0}


def test_hints_come_one_by_one():
    """The case; a question; the place; and then the name too, with the cure."""
    turn = TURNS["survivors"][0]
    hints, name = [f"hint {i}: {text}" for i, text in enumerate(turn.hints, 1)], f"looks like: {turn.title}"
    for level, below in {0: [], 1: hints[:1], 2: hints[:2], 3: [*hints[:2], name, hints[2]], None: [name]}.items():
        row = judged("survivors", turn.function, hint=level)
        assert row["message"].split("\n")[1:] == below and row["diagnosis"] == turn.title
    assert judged("softmax", lambda x: x * 0.123, hint=1)["message"].endswith("like any wrong turn known here")
    assert judged("softmax", reference_stub, hint=1)["message"] == "not written yet (NotImplementedError)"


HINTED = [(turn.title, turn.hints) for _, turn in EVERY] + [(LEFT_OVER.title, LEFT_OVER.hints)]
HINTED += [(cache.name, HINTS["caches"][cache.name]) for cache in WRONG_TURNS]


def test_hints_have_their_form():
    """A question; a place to look at; what to do: short, and none says the name before its time."""
    for title, (question, place, cure) in HINTED:
        assert question.endswith("?") and re.match(r"Look (at|for|before|behind) ", place), title
        assert not cure.endswith("?") and max(map(len, (question, place, cure))) <= 120, title
        assert title not in question + place


def test_every_hint_is_some_wrong_turn_s():
    """No title in hints.txt is left from one that is called otherwise now."""
    named = {(title, *hints) for title, hints in HINTED} | {(LEFT_OVER.title, *LEFT_OVER.hints)}
    assert {(title, *hints) for titled in HINTS.values() for title, hints in titled.items()} <= named


def test_a_long_list_of_slots_is_written_by_its_ends():
    """Where only a large cache is wrong."""

    def survivors(n_slots, n_sinks, window):
        return [slot for slot in reference.survivors(n_slots, n_sinks, window) if slot or n_slots < 10]

    said = judged("survivors", survivors)["message"]
    assert re.search(r"your cache kept \[[^\]]*\d+\.\.\d+\]; expected \[\d+\.\.\d+[^\]]*\]", said), said


def test_half_precision_is_said():
    """Where it is that, and nowhere else."""

    def in_half(x):
        return np.float16(reference.softmax(x))

    said = judged("softmax", in_half, seed=3)["message"]
    assert re.search(r"\(off by \S+: half precision has three digits; compute in float32 or float64\)$", said)
    assert "half" not in judged("softmax", lambda x: reference.softmax(x) * 1.001)["message"]
    assert "half" not in judged("softmax", lambda x: reference.softmax(x).round(3))["message"]


def test_a_turn_is_known_by_most_of_its_answers():
    """One that goes its own way on the smallest case is named all the same, and shown where it is the turn."""

    def one_too_few(n_slots, n_sinks, window):
        return TURNS["survivors"][1].function(n_slots, n_sinks, window) or [0]

    row = judged("survivors", one_too_few)
    assert row["diagnosis"] == TURNS["survivors"][1].title and "kept [0]" not in row["message"]


@pytest.mark.parametrize(
    ("task", "function", "named"),
    [
        ("softmax", lambda x: [math.exp(s) / sum(map(math.exp, x)) for s in x], "the exponential overflows"),
        ("softmax", lambda x: over_largest_or_zero(x), FROM_ZERO),
        ("token_nll", lambda logits, ids: [-math.log(p) for p in likely(logits, ids)], "the softmax underflows"),
    ],
)
def test_what_math_raises_at_is_infinite_for_numpy(task, function, named):
    """The same wrong turn, without NumPy."""
    assert judged(task, function)["diagnosis"] == named


def over_largest_or_zero(x):
    weights = [math.exp(score - max(0.0, *x)) for score in x]
    return [weight / sum(weights) for weight in weights]


def likely(logits, ids):
    """The probability of each token."""
    return np.exp(-reference.token_nll(logits, ids))


def test_what_is_left_from_an_earlier_call_is_named():
    """A global, as in a notebook; and chance."""
    held: list = []

    def step(state, q, k, v, n_sinks, window, theta):
        out, held[:] = PLAIN["step"](state or held[-1:], q, k, v, n_sinks, window, theta)
        return out, [*held]

    def softmax(x):
        return reference.softmax(x) + (len(x) > 2) * np.random.default_rng().random(len(x))

    for name, function in (("step", step), ("softmax", softmax)):
        row = judged(name, function, hint=1)
        assert row["diagnosis"] == LEFT_OVER.title and LEFT_OVER.hints[0] in row["message"]


@pytest.mark.slow
def test_output_and_state_the_wrong_way_round_are_told():
    """Whatever the state is made of; a wrong output of another shape is not taken for it."""
    for as_state in (list, lambda held: {"held": held}):

        def step(state, *args, as_state=as_state):
            out, held = PLAIN["step"](None, *args)
            return as_state(held), out

        assert "the output comes first: (out, state)" in judged("step", step)["message"]
    for out, said in ((np.zeros(7), "shape"), (None, "None"), ({}, "dict")):
        message = judged("step", lambda *args, out=out: (out, ([args[1]], args[2], args[0])))["message"]
        assert said in message and "comes first" not in message


def test_what_no_turn_explains_has_no_name():
    """Two sets are soon alike, and a small case is; a name must be true of the whole."""

    def retrieve(q, keys, block, k, window, theta):  # a block is worth the second best of its keys
        scores = keys @ reference.rotate(q, window, theta)
        worth = [np.sort(scores[start : start + block])[-2:][0] for start in range(0, len(scores), block)]
        return np.argsort(worth)[::-1][:k]

    def survivors(n_slots, n_sinks, window):  # the middle leaves
        slots = list(range(n_slots))
        while len(slots) > n_sinks + window:
            del slots[len(slots) // 2]
        return slots

    for name, function in (("retrieve", retrieve), ("survivors", survivors)):
        for seed in range(3):
            row = judged(name, function, seed)
            assert (row["status"], row["diagnosis"]) == ("failed", None)


def dealt_out(q, k, v, visible):
    """Heads first, and query head h reads key head h % K."""
    scores = [np.where(visible, x @ k[h % len(k)].T / np.sqrt(k.shape[-1]), -np.inf) for h, x in enumerate(q)]
    return np.stack([reference.softmax(x) @ v[h % len(v)] for h, x in enumerate(scores)])


def test_heads_that_share_keys_wrongly_are_named():
    """Whichever axis is for heads, with the arguments; a step too."""
    row = judged("attend", dealt_out)
    assert (row["status"], row["diagnosis"]) == ("failed", "query head h reads key head h % K")
    assert re.match(r"query 0 of head 1 \(of 4, which share 2 key heads\) sees .* k = \[\[\[0, 0\]", row["message"])
    heads: dict = {}
    exec(styles.FLOAT32_HEADS, heads)
    assert judged("step", heads["step"])["status"] == judged("attend", heads["attend"])["status"] == "passed"
    heads["np"] = type("", (), {**vars(np), "repeat": lambda x, n, axis: np.tile(x, (1, n, 1))})
    assert judged("step", heads["step"])["diagnosis"] == "query head h reads key head h % K"


def test_who_does_not_take_fewer_key_heads_is_not_asked_to():
    """Neither rows, nor one head, nor as many as there are queries; nor one that mixes its heads."""

    def as_many(q, k, v, visible):
        scores = np.where(visible, np.einsum("thd,shd->hts", q, k) / np.sqrt(q.shape[-1]), -np.inf)
        return np.einsum("hts,shd->thd", reference.softmax(scores), v)

    def one(q, k, v, visible):
        return reference.attend(q[:, 0], k[:, 0], v[:, 0], visible)[:, None] + 0 * q

    for function in (as_many, one, PLAIN["attend"]):
        assert judged("attend", function)["status"] == "passed"


def test_an_asking_that_came_further_is_told():
    """Of errors too: what a function for heads says of rows is not its mistake."""
    text = """
def attend(q, k, v, visible):
    T, H, D = q.shape
    S, K, D = k.shape
    return softmaxx(q)
"""
    names: dict = {}
    exec(compile(text, "a file", "exec"), names)

    def ask(name, cases, style="arrays", stand_ins=()):
        args = [in_style(TASKS[name], case, style) for case in cases]
        return Answers([answer(name, names[name], each, "a file") for each in args], {}, [], None)

    message = judge("attend", ask, passed=TASKS)["message"]
    assert message.startswith("NameError: name 'softmaxx' is not defined (line 5), for q = [[0]], k = [[0]], v = [[1]]")


def test_memory_that_grows_is_seen_in_any_container():
    assert [numbers_in(x) for x in (None, 1.5, [1, (2, 3)], {"a": np.zeros(4)}, "text")] == [0, 1, 3, 4, 0]

    class State:
        def __init__(self):
            self.held = [np.zeros(3), np.zeros(2)]

    assert numbers_in(State()) == 5
    held = np.zeros(6)
    assert numbers_in((lambda: held,)) == 6
    assert not Outcome(sizes=[4] * 48).grows and Outcome(sizes=list(range(1, 49))).grows


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "None"),
        ("abc", "str"),
        ([[1], [1, 2]], "list"),
        (1j, "complex"),
        (["a"], "list of text"),
        ({}, "dict"),
        (np.zeros(200_000), "200000"),
    ],
    ids=["None", "text", "ragged", "complex", "texts", "dict", "too many"],
)
def test_what_is_no_answer_is_said(value, said):
    with pytest.raises(ValueError, match=said):
        encode(value)


@pytest.mark.parametrize(
    "raw", [{}, {"value": 3}, {"value": [[2], "f", [1.0]]}, {"value": [[1], "f", ["a"]]}, {"outs": 1}]
)
@pytest.mark.parametrize("name", ["softmax", "step"])
def test_an_unreadable_answer_is_a_wrong_one(name, raw):
    case = cases_of(TASKS[name], 0)[0]
    assert not outcome_of(TASKS[name], case, raw).is_right(TASKS[name], case)


def test_outputs_of_another_shape_are_said_to_be():
    """Of a step too, with the sizes of its cache; a channel too many."""

    def step(state, q, k, v, *sizes):
        out, state = reference.step(state, q, k, v, *sizes)
        return np.append(out, 0.0), state

    shapes, call = "(1, 9); expected (1, 8)", "1 token of 8 channels, n_sinks = 0, window = 1, theta = 100"
    assert judged("step", step)["message"] == f"your answer has the shape {shapes}, for {call}"


def test_rows_may_be_generators():
    for rows in (lambda x: (map(float, row) for row in x), lambda x: [iter(row) for row in x], list):
        found = judged("rotate", lambda x, positions, theta, rows=rows: rows(reference.rotate(x, positions, theta)))
        assert found["status"] == "passed", found


def test_a_notebook_may_raise_at_what_underflows():
    """The student's functions may, and the checker goes on."""
    with np.errstate(all="raise"):
        assert {judged(name, PLAIN[name])["status"] for name in ("attend", "survivors")} == {"passed"}
        assert judged("softmax1", reference.softmax1)["message"].startswith("FloatingPointError: underflow")
        assert judged("step", lambda *given: (given[3], None))["status"] == "failed"


def test_an_answer_of_no_use_is_told_before_an_error_of_another_asking():
    """A state first, and lists it cannot take: the pair is what is wrong."""

    def state_first(state, q, k, v, n_sinks, window, theta):
        return {"keys": [k[None, :]]}, reference.step(None, q, k, v, n_sinks, window, theta)[0]

    def ask(name, cases, style="arrays", stand_ins=()):
        replies = [answer(name, state_first, in_style(TASKS[name], case, style), __file__) for case in cases]
        return Answers(replies, {}, [], None)

    assert "the output comes first" in judge("step", ask, passed=TASKS)["message"]


def test_errors_are_worded():
    def raises(x):
        return 1 / 0

    assert judged("softmax", raises)["message"] == "ZeroDivisionError: division by zero, for x = [0]"
    assert "not written yet" in judged("softmax", reference_stub)["message"]
    assert re.match(r"it returned None.*return missing", judged("softmax", lambda x: None)["message"])
    assert "shape (1,); expected (2,)" in judged("softmax", lambda x: reference.softmax(x)[:1])["message"]
    assert "a pair is needed" in judged("step", lambda *args: np.zeros(8))["message"]


def test_what_a_file_says_of_itself_is_one_line():
    """Neither the name of an error nor its text can write a line of the report, or colour it."""

    def raises(x):
        raise type("E\nlooks like: a", (Exception,), {})("b\nhint 1: \x1b[31mc\r\u2028d")

    assert judged("softmax", raises)["message"] == "E looks like: a: b hint 1: [31mc d, for x = [0]"


@pytest.mark.parametrize("numbers", [[np.nan], [np.inf], [1e300], [-1.0], [0.5]])
def test_numbers_that_are_no_blocks_are_wrong_without_a_warning(numbers):
    with np.errstate(all="raise"):
        assert judged("retrieve", lambda *args: numbers)["status"] == "failed"


@pytest.mark.parametrize("container", [set, frozenset, tuple, iter, np.array, lambda x: {i: 0 for i in x}.keys()])
def test_slots_come_in_any_container(container):
    """A set has no order of its own."""
    row = judged("survivors", lambda *args: container(reference.survivors(*args)))
    assert row["status"] == "passed", row["message"]


def reference_stub(x):
    raise NotImplementedError


def test_blocks_may_be_named_by_their_keys():
    """And by fewer or other keys than all of them they may not."""

    def keys_of(q, keys, block, k, window, theta):
        best = reference.retrieve(q, keys, block, k, window, theta)
        return [i for i in range(len(keys)) if i // block in best]

    assert judged("retrieve", keys_of)["status"] == "passed"
    assert judged("retrieve", lambda *args: keys_of(*args)[:-1])["status"] == "failed"
    assert judged("retrieve", lambda *args: range(len(args[1])))["status"] == "failed"


# In a notebook --------------------------------------------------------------------------------------


def test_live_functions_are_checked_in_place(capsys):
    assert check_functions(softmax=PLAIN["softmax"], rotate=PLAIN["rotate"]) is True
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 tasks pass: 2 of 2 points"
    turn = TURNS["rotate"][0]

    def rotate(*args):
        return turn.function(*args)

    assert check_functions(softmax=PLAIN["softmax"], rotate=rotate, hint=1) is False
    out = " ".join(capsys.readouterr().out.split())
    assert turn.title not in out and turn.hints[0] in out and "1 of 2 points" in out
    check_functions(rotate=rotate)
    out = capsys.readouterr().out
    assert f"looks like: {turn.title}" in " ".join(out.split()) and "hint=1 in this call" in out.splitlines()[-1]


def test_live_functions_that_are_none_are_refused():
    for functions, said in (
        ({}, "no function"),
        ({"soft": abs}, "'soft' is not a task"),
        ({"softmax": 3}, "softmax is 3"),
    ):
        with pytest.raises(ValueError, match=said):
            check_functions(**functions)


def test_a_report_may_be_raised(capsys):
    """All of it, for otter; what passes is printed."""
    with pytest.raises(AssertionError, match=r"(?s)after 2 tokens .* looks like: .*0 of 1 tasks pass"):
        check_functions(survivors=lambda *args: PLAIN["survivors"](*args[:2], args[2] + 1), raises=True)
    assert capsys.readouterr().out == ""
    assert check_functions(survivors=PLAIN["survivors"], raises=True) and "1 of 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "function"),
    [
        ("softmax", reference.softmax),
        ("softmax", ops.softmax),
        ("softmax", functools.partial(ops.softmax)),
        ("softmax", functools.wraps(ops.softmax)(lambda x: ops.softmax(x))),
        ("softmax", lambda x: ops.softmax(x)),
        ("softmax", lambda x: minisink.by_the_book.softmax(x)),
        ("softmax", lambda x: ops.softmax_with_sink(x, -np.inf)),
        ("attend", lambda q, k, v, visible: minisink.attention.attend(q, k, v, visible)),
        ("step", reference.step),
        ("survivors", lambda n, s, w: minisink.Streaming(s, w).survivors(np.arange(n))),
        ("rotate", TURNS["rotate"][0].function),
        ("positions_of", minisink.Streaming(1, 2).positions_of),
    ],
)
def test_minisink_s_own_code_is_refused(task, function):
    with pytest.raises(
        ValueError, match=rf"^{task} is minisink's own \(minisink\..*\); give a function that you wrote"
    ):
        check_functions(**{task: function})


def test_a_lesson_s_parts_may_be_called():
    """What minisink does of another task, as the lessons do, is no copy."""

    def attend(q, k, v, visible):
        return ops.softmax(np.where(visible, q @ k.T / np.sqrt(q.shape[1]), -np.inf)) @ v

    assert check_functions(attend=attend)


def test_ctrl_c_ends_a_live_check():
    def softmax(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_functions(softmax=softmax)
