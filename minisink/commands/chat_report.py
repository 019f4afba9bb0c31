"""What `minisink chat` does with one turn, and what it says of it."""

import time
from contextlib import closing

from ..hf.tokenizer import text_stream
from ..system.interrupts import interrupts_wait, until
from ..system.terminal import count, human_bytes, number, table


def take(conversation, line, args, measured, show=lambda piece: None):
    """Take one turn; what there is to tell of it."""
    before = conversation.n_seen
    evicted = conversation.stream.n_held < conversation.n_seen
    begun = time.perf_counter()
    report = {"turn": conversation.n_turns + 1, "user": line.words}
    if line.reply is not None:
        nll = conversation.score(line.words, line.reply)
        measured.add(nll=nll if evicted else None)
        n_new, writing = len(nll), time.perf_counter() - begun
        report |= {"reply": line.reply, "nll": float(nll.mean())}
    else:
        report["answer"], tokens, writing = _answer(conversation, line.words, args.max_new_tokens, show)
        measured.add(answer=tokens if evicted else ())
        n_new = len(tokens)
    stream = conversation.stream
    return report | {
        "tokens_seen": conversation.n_seen,
        "cache_tokens": stream.n_kept,
        "cache_bytes": stream.n_bytes,
        "seconds": round(time.perf_counter() - begun, 3),
        "tokens_per_second": round(n_new / writing, 1) if n_new > 1 and writing else None,
        "longer": stream.window is not None and conversation.n_seen - before - n_new > stream.window,
    }


def _answer(conversation, words, max_new_tokens, show):
    """An answer as it comes: its text, its tokens, and the seconds from the first of them to the last.

    Ctrl-C stops it between two tokens.
    """
    tokens, times, text = [], [], []
    answer = conversation.answer(words, max_new_tokens=max_new_tokens)
    with interrupts_wait() as stop, closing(answer):

        def noted():
            for token in until(stop, answer):
                tokens.append(token)
                times.append(time.perf_counter())
                yield token

        for piece in text_stream(conversation.model.tokenizer, noted()):
            text.append(piece)
            show(piece)
        show(" (stopped)\n" if stop else "\n")
    return "".join(text), tokens, times[-1] - times[0] if times else 0.0


def method_in_words(stream):
    """A method and its sizes, in words."""
    if stream.method == "dense":
        return "dense attention, whose cache grows with every token"
    if stream.method == "recompute":
        return f"re-computation of the last {stream.window} tokens at every step"
    sinks = f"{count(stream.n_sinks, 'sink')} and " if stream.n_sinks else ""
    return f"{stream.method} attention with {sinks}a window of {stream.window}"


def status(conversation, report=None):
    """Where a conversation stands, in words; after a turn, with its speed."""
    per_second = report and report["tokens_per_second"]
    speed = f", {per_second:.0f} a second" if per_second else ""
    stream, (turns, cut) = conversation.stream, conversation.in_view
    cached = f"{stream.n_kept:,} in the cache ({human_bytes(stream.n_bytes)})"
    if stream.cache is None:
        cached = f"the last {stream.n_held:,} read anew each time"
    told = f"{conversation.n_seen:,} tokens seen, {cached}{speed}"
    whole = turns[1:] if cut else turns
    if turns:
        view = [
            f"turn{'s' if len(whole) > 1 else ''} {_range(whole)}" if whole else "",
            f"{turns[0]} in part" if cut else "",
        ]
        told += f"; in view: {', '.join(filter(None, view))}"
    return told + ("; this turn was longer than the window" if report and report["longer"] else "")


def _range(numbers):
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"


def summary(measured):
    """What each method's replies and answers came to after the first eviction."""
    if not any(m.nll or m.grams for m in measured.values()):
        return "Nothing was evicted before the last turn: this says nothing of any method."
    rows = [
        [method, number(m.reply_nll), "-" if not m.grams else f"{m.repeated:.0%}"] for method, m in measured.items()
    ]
    return "After the first eviction:\n" + table(["method", "nats a token of the replies", "repeated 4-grams"], rows)
