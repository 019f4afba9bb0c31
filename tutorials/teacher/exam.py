"""Draw an exam from a seed: a sheet for each of two neighbours, and the key. 50 points, 75 minutes.

::

    python tutorials/teacher/exam.py --seed 7                        sheet A, sheet B and the key, in Markdown
    python tutorials/teacher/exam.py --seed 7 --part key             one of them: A, B or key
    python tutorials/teacher/exam.py --seed 7 --mark boxes.csv       points for boxes; the file has a line
                                                                     student,version,1,2,...,8 and then one line per
                                                                     student, with what they wrote

There are eight boxes for numbers, which a machine marks: seven drawn questions and a picture to read. Then come a
function to write (`exam_tasks.py` judges it) and four questions from `exam.md`, whose answers the key takes from
`solutions.md`. A and B have different numbers in every box, a different order and a different function; the same seed
always gives the same exam.
"""

import argparse
import csv
import importlib.util
import inspect
import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from minisink import Streaming
from minisink.ops import softmax, softmax1, softmax_with_sink
from minisink.system.errors import run_command
from minisink.wrong_turns import right, tokens

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("exam_tasks", HERE / "exam_tasks.py")
tasks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tasks)

CODE = {"A": tasks.thinned, "B": tasks.heaviest}
OPEN = [(2, 4, 6, 12, 13), (2, 4, 6, 12, 13), (5, 7), (8, 10)]  # from exam.md; one is drawn from each group, none twice
BOX, SENTENCE, TOTAL = 3, 3, 50  # points: for a box, for the sentence on the picture, in all

# Each returns a question and the numbers that its box must hold -----------------------------------


def held(n_sinks, window, n):
    """Return the tokens that a cache holds after each of n tokens."""
    policy, now, after = Streaming(n_sinks, window), np.arange(0), []
    for token in range(n):
        now = np.append(now, token)
        now = now[policy.survivors(now)]
        after.append(now.tolist())
    return after


def factor(rng):
    """Ask what an evicted sink does to the other weights."""
    rest, times = rng.integers(3, 8), rng.integers(3, 9)
    scores = np.log([float(rest * (times - 1)), rest - 2.0, 1.0, 1.0])
    before, after = softmax(scores), softmax(scores[1:])
    ask = f"A query has the scores `[log {rest * (times - 1)}, log {rest - 2}, 0, 0]`. The key in slot 0 is evicted."
    return f"{ask} By what factor do the other weights grow?", [after[0] / before[1]]


def slots(rng):
    """Ask which tokens are held."""
    n_sinks, window, last = (int(rng.integers(*ends)) for ends in ((1, 4), (3, 6), (12, 30)))
    ask = f"A cache with `n_sinks = {n_sinks}` and `window = {window}` has taken in the tokens 0 to {last}."
    return f"{ask} Which tokens does it hold, in the order of its slots?", held(n_sinks, window, last + 1)[-1]


def first_out(rng):
    """Ask for the first eviction."""
    n_sinks, window = (int(rng.integers(*ends)) for ends in ((2, 9), (10, 40)))
    after = held(n_sinks, window, 60)
    came = next(token for token, now in enumerate(after) if len(now) <= token)
    gone = set(range(came + 1)).difference(after[came]).pop()
    ask = f"A cache has `n_sinks = {n_sinks}` and `window = {window}`. Which token is evicted first, and which token"
    return f"{ask} has just arrived then? (Two numbers.)", [gone, came]


def ring(rng):
    """Ask for the two copies of a query."""
    n_sinks, window, token = (int(rng.integers(*ends)) for ends in ((2, 6), (5, 30), (100, 1000)))
    ask = f"A ring buffer rotates each key once, at its place in the text. `n_sinks = {n_sinks}`, `window = {window}`."
    ask += f" Token {token} arrives. To which position is its query rotated for the keys in the window, and to which"
    return f"{ask} for the sinks? (Two numbers, in that order.)", [token, n_sinks + window - 1]


def echo(rng):
    """Ask how far a change is felt."""
    layers, window, token = (int(rng.integers(*ends)) for ends in ((2, 7), (8, 40), (10, 60)))
    ask = f"A model has {layers} layers, a window of {window} and no sink. Token {token} is changed. What is the last"
    return f"{ask} token whose *loss* may change?", [token + layers * (window - 1) + 1]


def weights(rng):
    """Ask for three kinds of softmax."""
    n, z = (int(i) for i in rng.choice(np.arange(2, 8), 2, replace=False))
    x = np.zeros(n)
    ask = f"Each of {n} keys has the score 0. What does each weigh under softmax, under softmax1, and under a softmax"
    answer = [softmax(x)[0], softmax1(x)[0], softmax_with_sink(x, np.log(float(z)))[0]]
    return f"{ask} with a learned sink logit `log {z}` in its denominator? (Three fractions, in that order.)", answer


def recent(rng):
    """Ask for the authors' sizes in ours."""
    start, size = (int(rng.integers(*ends)) for ends in ((1, 9), (20, 300)))
    ask = (
        f"The authors' code, with `start_size = {start}` and `recent_size = {size}`, trims its cache *after* each pass."
    )
    ask += " Which `n_sinks` and `window` are equivalent here, where the current token counts, and how many keys"
    return f"{ask} can a query see at most? (Three numbers.)", [start, size + 1, start + size + 1]


def picture(rng):
    """Ask which of two pictures shows the right cache."""
    n_sinks, window, correct = int(rng.integers(1, 4)), int(rng.integers(4, 6)), int(rng.integers(1, 3))
    gallery = (
        tokens.OneMore,
        tokens.OneLess,
        tokens.NoSinks,
        tokens.OneMoreSink,
        tokens.SinksWithin,
        tokens.HalfAtOnce,
    )
    wrong = gallery[rng.integers(len(gallery))]
    seen = [
        seen_by(cache, n_sinks, window) for cache in ((right.Cache, wrong) if correct == 1 else (wrong, right.Cache))
    ]
    differ = next(token for token, (one, other) in enumerate(zip(*seen, strict=True)) if one != other)
    ask = f"Two caches should have `n_sinks = {n_sinks}` and `window = {window}`. Rows are queries, and columns are"
    ask += " keys; `#` means seen, `.` means evicted. Which picture is right, 1 or 2, and at which query do the"
    ask += f" two first differ? (Two numbers.) In one sentence ({SENTENCE}): what is wrong with the other cache?\n\n"
    return f"{ask}```\n{drawn(seen)}\n```", [correct, differ], wrong.diagnosis()


def seen_by(cache, n_sinks, window, n=13):
    """Return the tokens that each query sees in a cache."""
    cache, seen = cache(n_sinks=n_sinks, window=window, theta=None), []
    for _ in range(n):
        cache.step(*np.zeros((3, 1, 2)))
        seen.append([int(token) for token in cache.token_index])
    return seen


def drawn(pictures):
    """Return two pictures side by side, as lines of text."""
    n = len(pictures[0])
    digits = "".join(f"{key % 10} " for key in range(n))
    lines = [f"          1{' ' * (2 * n + 9)}2", f"    key   {digits}   key   {digits}"]
    for query in range(n):
        rows = ["".join("# " if key in seen[query] else ". " for key in range(query + 1)) for seen in pictures]
        lines.append("   ".join(f"query {query:2}  {row:{2 * n}}" for row in rows).rstrip())
    return "\n".join(lines)


# The exam -------------------------------------------------------------------------------------------

BOXES = (factor, slots, first_out, ring, echo, weights, recent)


def boxes(seed):
    """Return, for versions A and B, [(question, its numbers, more for the key)], with the picture last."""
    versions = {"A": [], "B": []}
    for number, ask in enumerate((*BOXES, picture)):
        rng = np.random.default_rng([seed, number])
        for made in versions.values():
            there = [box[1] for other in versions.values() for box in other[number:]]
            question, answer, *more = ask(rng)
            while answer in there:  # a neighbour gets different numbers
                question, answer, *more = ask(rng)
            made.append((question, answer, *more))
    order = np.random.default_rng([seed, 99])
    for made in versions.values():
        made[:-1] = [made[i] for i in order.permutation(len(BOXES))]
    return versions


def parts(name):
    """Return {number: (points, text)} for exam.md or solutions.md."""
    text = re.split(r"^## ", (HERE / name).read_text(encoding="utf-8"), flags=re.MULTILINE)[0]
    found = re.findall(r"^\*\*(\d+)\.\*\* \((\d+)[^)]*\) (.*?)(?=^\*\*\d+\.\*\* |\Z)", text, re.MULTILINE | re.DOTALL)
    return {int(number): (int(points), words.strip()) for number, points, words in found}


def open_ones(seed):
    """Return the numbers of the questions drawn from exam.md, which are the same for both versions."""
    rng, chosen = np.random.default_rng([seed, 50]), []
    for several in OPEN:
        chosen.append(int(rng.choice([number for number in several if number not in chosen])))
    return chosen


def task(function):
    """Return a function in the form that students get: its `def` line and docstring."""
    head, _, rest = inspect.getsource(function).partition('"""')
    return f'{head}"""{rest.partition(chr(34) * 3)[0]}"""'


def sheet(seed, version):
    """Return a student's sheet."""
    lines = [f"# Attention sinks: exam {seed}, version {version}", "Name: ______________________", ""]
    lines += [
        f"75 minutes, {TOTAL} points, paper and pencil, one page of notes. In questions 1 to 8, only the boxes and"
    ]
    lines += [
        "the sentence in question 8 count. The current token counts as part of the window. Logarithms are natural.",
        "",
    ]
    made = boxes(seed)[version]
    for number, (question, *_) in enumerate(made, 1):
        words, _, figure = question.partition("\n\n")
        lines += [
            f"**{number}.** ({BOX}) {words}",
            "",
            *([figure, ""] if figure else []),
            "Box: `[                    ]`",
            "",
        ]
    code, exam = CODE[version], parts("exam.md")
    lines += [f"**9.** ({tasks.POINTS[code.__name__]}) Write this function in Python or NumPy.", ""]
    lines += [f"```python\n{task(code)}\n```", ""]
    for number, chosen in enumerate(open_ones(seed), 10):
        lines += [f"**{number}.** ({exam[chosen][0]}) {exam[chosen][1]}", ""]
    return "\n".join(lines)


def key(seed):
    """Return the key for both versions."""
    lines, versions = [f"# Key: exam {seed}", "", "| box | A | B |", "|---|---|---|"], boxes(seed)
    for number, pair in enumerate(zip(versions["A"], versions["B"], strict=True), 1):
        lines.append(f"| {number} | {' | '.join(shown(answer) for _, answer, *_ in pair)} |")
    lines += [
        "",
        f"A box earns {BOX} points if all its numbers are right. The mistake in the wrong picture ({SENTENCE}):",
        "",
    ]
    lines += [f"- {version}: {made[-1][2]}" for version, made in versions.items()]
    for version, code in CODE.items():
        lines += [
            "",
            f"**9{version}.** (8) Sinks and window 3, the rule in between 3, order and small n 2. A right solution:",
            "",
        ]
        lines += [f"```python\n{inspect.getsource(code)}```"]
    solved = parts("solutions.md")
    for number, chosen in enumerate(open_ones(seed), 10):
        words = re.sub(r"```python.*?```\s+prints\s+```.*?```", "", solved[chosen][1], flags=re.DOTALL).strip()
        lines += ["", f"**{number}.** ({solved[chosen][0]}) {words}"]
    return "\n".join(lines)


def shown(answer):
    """Return the numbers in a box as a student would write them."""
    return ", ".join(str(Fraction(float(x)).limit_denominator(1000)) for x in answer)


# Marking --------------------------------------------------------------------------------------------


def is_right(written, answer):
    """Return whether a box holds these numbers: integers exactly, others to within 2 %, as fractions or decimals."""
    try:
        found = [float(Fraction(x)) for x in re.findall(r"-?[\d./]*\d", written)]
    except (ValueError, ZeroDivisionError):
        return False
    within = [1e-6 if abs(y - round(y)) < 1e-6 else 0.02 * y for y in answer]
    return len(found) == len(answer) and all(abs(x - y) <= d for x, y, d in zip(found, answer, within, strict=True))


def mark(seed, path):
    """Yield a row for each student: name, version, points and the wrong boxes."""
    versions = boxes(seed)
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        numbers = [str(number) for number in range(1, len(BOXES) + 2)]
        if missing := {"student", "version", *numbers}.difference(rows.fieldnames or ()):
            raise ValueError(
                f"{path}: no column {', '.join(sorted(missing))}; the first line is student,version,1,...,8"
            )
        for row in rows:
            if row["version"] not in versions:
                raise ValueError(f"{path}: {row['student']} has version {row['version']!r}; it must be A or B")
            made = zip(numbers, versions[row["version"]], strict=True)
            wrong = [number for number, (_, answer, *_) in made if not is_right(row[number] or "", answer)]
            yield row["student"], row["version"], BOX * (len(numbers) - len(wrong)), " ".join(wrong)


def run(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Draw an exam for two neighbours, with its key, or mark its boxes.")
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="the same seed gives the same exam")
    parser.add_argument("--part", choices=("A", "B", "key"), help="print only this one of the three")
    parser.add_argument("--mark", metavar="CSV", help="print the points that a class earns for its boxes")
    args = parser.parse_args(argv)
    if args.seed < 0:
        raise ValueError(f"--seed is {args.seed}; it must be 0 or more")
    if args.mark:
        csv.writer(sys.stdout).writerows([("student", "version", "points", "wrong"), *mark(args.seed, args.mark)])
        return
    made = {"A": lambda: sheet(args.seed, "A"), "B": lambda: sheet(args.seed, "B"), "key": lambda: key(args.seed)}
    print("\n\n".join(made[part]() for part in ([args.part] if args.part else made)))


if __name__ == "__main__":
    sys.exit(run_command(run))
