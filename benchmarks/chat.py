"""An all-day chat: does a turn cost the same after two hundred others, and does it still make sense?

    python benchmarks/chat.py                        # the 200 turns that ship, streaming and window (15 minutes)
    python benchmarks/chat.py --turns 20             # a quick look
    python benchmarks/chat.py --write docs/chat.md   # also writes a section of that page
    python benchmarks/chat.py --control 150          # if answers change, is it the cache or the text? (ten minutes)

SmolLM2-135M-Instruct with a cache of 256 keys, temperature 0.7, top-p 0.9, and answers of at most 60 tokens. Time is
processor time, and only that of decoding an answer; memory is what this process holds (RSS), read after each turn.
Two numbers tell us whether an answer makes sense. One is the loss of its tokens in nats when the same model rereads
them in a new conversation that begins with the same question (re-computation, with nothing evicted). The other is the
share of its 4-grams that it has already used. A loop does not surprise a model, so neither number is enough alone.
"""

import argparse
import os
import time
from itertools import pairwise
from tempfile import TemporaryDirectory

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import page  # noqa: E402
from long import resident  # noqa: E402
from measure import say  # noqa: E402

import minisink  # noqa: E402
from minisink.chat.conversation import Conversation
from minisink.chat.script import Measured, read_turns

LONGEST = 60
METHODS = {"streaming": minisink.Streaming(4, 252), "window": minisink.Window(256)}
WARM = 10  # the first turns, during which the cache fills up


def main():
    """Hold the conversations, print, and put the section into the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", metavar="FILE", help="the Markdown page to put this section into")
    parser.add_argument("--control", type=int, metavar="N", help="stream N turns, then run the rest in three ways")
    args = parser.parse_args()
    lines = read_turns("day")
    if not WARM + 2 <= args.turns <= len(lines):  # so that each half after the first turns has at least one turn
        parser.error(f"--turns must be from {WARM + 2} to {len(lines)}")
    model = minisink.load("smollm2")
    if args.control:
        control(model, lines[: args.control], lines[args.control : args.turns], args.seed)
        return
    rows = {name: talk(model, METHODS[name], lines[: args.turns], args.seed) for name in args.methods}
    found = [*heading(args), *tables(rows)]
    print("\n".join(found))
    if args.write:
        page.put_section(args.write, found)


def talk(model, method, lines, seed):
    """Return one row per turn: tokens written, processor seconds, bytes of this process, loss of the answer."""
    return go_on(Conversation(model, method, temperature=0.7, top_p=0.9, seed=seed), method.name, lines)


def go_on(conversation, name, lines):
    """Return the rows of some more turns of a conversation."""
    model, rows = conversation.model, []
    for i, line in enumerate(lines):
        answer, times = [], []
        for token in conversation.answer(line.words, max_new_tokens=LONGEST):
            answer.append(token)
            times.append(time.process_time())
        seconds = times[-1] - times[0] if times else 0.0
        rows.append({"tokens": answer, "seconds": seconds, "bytes": resident()})
        if i % 20 == 19:
            say(f"{name}, turn {i + 1}, {conversation.n_seen:,} tokens: {model.decode(answer)[:60]!r}")
    for line, row in zip(lines, rows, strict=True):  # done afterwards, because it takes memory too
        row["nll"] = read_again(model, conversation.template, line.words, row["tokens"]) if row["tokens"] else []
    return rows


def read_again(model, template, words, answer):
    """Return the loss of each token of an answer in a conversation that begins with its question."""
    asked = template.fill(template.first, user=words)
    nll = minisink.token_nll(model, asked + answer, minisink.Dense())
    return nll[len(asked) - 1 :].tolist()


def control(model, first, others, seed):
    """Stream some turns, then run the rest with that cache, with one that rereads the visible tokens, and without."""
    method = METHODS["streaming"]
    conversation = Conversation(model, method, temperature=0.7, top_p=0.9, seed=seed)
    go_on(conversation, "streaming", first)
    with TemporaryDirectory() as folder:
        state = os.path.join(folder, "chat.state")
        conversation.save(state)
        rows = {"the same cache": go_on(conversation, "the same cache", others)}
        conversation.load(state)
    conversation.switch_method(method)
    rows["the visible text, reread"] = go_on(conversation, "reread", others)
    conversation.forget()
    rows["a new conversation"] = go_on(conversation, "a new conversation", others)
    for name, turns in rows.items():
        written, _, _, loss, repeated = summed(turns)
        print(f"{name}: {written} tokens, answer loss {loss} nats, {repeated} repeated 4-grams")
    kept, again = ([row["tokens"] for row in turns] for turns in list(rows.values())[:2])
    print(f"answers that the first two have in common: {sum(map(list.__eq__, kept, again))} of {len(others)}")


def heading(args):
    """Yield the title, the command and the machine."""
    yield "## All day"
    yield ""
    yield f"- command: `{page.command()}`"
    yield from page.machine()
    yield ""


def tables(rows):
    """Yield how time, memory and sense develop over the turns."""
    n_turns = len(next(iter(rows.values())))
    cuts = sorted({0, WARM, *range(50, n_turns, 50), n_turns})
    header = [
        "method",
        "turns",
        "tokens written",
        "ms per token",
        "memory, MB",
        "answer loss, nats",
        "repeated 4-grams",
    ]
    table = []
    for method, turns in rows.items():
        for start, stop in pairwise(cuts):
            table.append([method, f"{start + 1}-{stop}", *summed(turns[start:stop])])
    yield from page.table(header, table)
    for method, turns in rows.items():
        warm = turns[WARM:]
        low, high = (f(row["bytes"] for row in warm) / 1e6 for f in (min, max))
        half = len(warm) // 2
        ratio = per_token(warm[half:]) / per_token(warm[:half])
        yield f"- {method}, after the first {WARM} turns: memory {low:.2f} to {high:.2f} MB; a token in the second half"
        yield f"  takes {ratio:.3f} times as long as one in the first."
    yield ""


def summed(turns):
    """Return the cells of one row of the table."""
    measured = Measured()
    for row in turns:
        measured.add(nll=row["nll"], answer=row["tokens"])
    written = sum(len(row["tokens"]) for row in turns)
    held = max(row["bytes"] for row in turns) / 1e6
    return [
        f"{written:,}",
        f"{1000 * per_token(turns):.1f}",
        f"{held:.1f}",
        f"{measured.reply_nll:.2f}",
        f"{measured.repeated:.0%}",
    ]


def per_token(turns):
    """Return processor seconds per token, leaving out the first of each answer, whose time goes to reading the turn."""
    return sum(row["seconds"] for row in turns) / sum(max(0, len(row["tokens"]) - 1) for row in turns)


if __name__ == "__main__":
    main()
