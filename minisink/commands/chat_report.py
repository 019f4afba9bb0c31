"""One turn of `minisink chat`, and its report."""

import time
from contextlib import closing
from itertools import pairwise

from ..chat.stream import n_bytes, n_kept
from ..evaluation.difference import paired
from ..hf.tokenizer import text_stream
from ..methods import Dense, Recompute
from ..system.interrupts import defer_interrupts
from ..system.terminal import count, human_bytes, number, table, wrap


def take(conversation, line, max_new_tokens, measured, show):
    """Run one turn and return its report; the answer goes to `show` piece by piece, the figures to `measured`."""
    before, start = conversation.n_seen, time.perf_counter()
    evicted = conversation.stream.n_held < before
    report = {"turn": conversation.n_turns + 1, "user": line.words}
    if line.reply is not None:
        nll = conversation.score(line.words, line.reply)
        measured.add(nll=nll if evicted else None)
        n_new, writing = len(nll), time.perf_counter() - start
        report |= {"reply": line.reply, "nll": float(nll.mean())}
    else:
        report["answer"], tokens, writing = _answer(conversation, line.words, max_new_tokens, show)
        measured.add(answer=tokens if evicted else ())
        n_new = len(tokens)
    stream, window = conversation.stream, conversation.stream.method.window
    report |= {"tokens_seen": conversation.n_seen, "cache_tokens": n_kept(stream), "cache_bytes": n_bytes(stream)}
    report["seconds"] = round(time.perf_counter() - start, 3)
    report["tokens_per_second"] = round(n_new / writing, 1) if n_new > 1 and writing else None
    return report | {"longer": window is not None and conversation.n_seen - before - n_new > window}


def _answer(conversation, words, max_new_tokens, show):
    """Show an answer as it is decoded, until Ctrl-C; return its text, tokens, and the seconds from first to last."""
    tokens, times, text = [], [], []
    answer = conversation.answer(words, max_new_tokens=max_new_tokens)
    with defer_interrupts() as stop, closing(answer):

        def timed():
            for token in answer:
                tokens.append(token)
                times.append(time.perf_counter())
                yield token
                if stop:
                    return

        for piece in text_stream(conversation.model.tokenizer, timed(), name=conversation.model.name):
            text.append(piece)
            show(piece)
        show(" (stopped)\n" if stop else "\n")
    return "".join(text), tokens, times[-1] - times[0] if times else 0.0


def in_words(method):
    """Describe a method and its sizes."""
    if isinstance(method, Dense):
        return "dense attention, whose cache grows with every token"
    if isinstance(method, Recompute):
        return f"re-computation of the last {method.window} tokens at every step"
    sinks = f"{count(method.n_sinks, 'sink')} and " if method.n_sinks else ""
    return f"{method.name} attention with {sinks}a window of {method.window}"


def status(conversation, report=None):
    """Describe the state of a conversation; after a turn, with its speed."""
    stream, (turns, cut) = conversation.stream, conversation.in_view
    text = f"{conversation.n_seen:,} tokens seen, {n_kept(stream):,} in the cache ({human_bytes(n_bytes(stream))})"
    if stream.cache is None:
        text = f"{conversation.n_seen:,} tokens seen, the last {stream.n_held:,} read again each time"
    if report and report["tokens_per_second"]:
        text += f", {report['tokens_per_second']:.0f} per second"
    whole = turns[1:] if cut else turns
    parts = [f"turns {whole[0]}-{whole[-1]}" if len(whole) > 1 else f"turn {whole[0]}"] if whole else []
    parts += [f"part of {turns[0]}"] if cut else []
    text += f"; in view: {', '.join(parts)}" if parts else ""
    return text + ("; this turn was longer than the window" if report and report["longer"] else "")


def summary(measured):
    """Summarise each method's replies and answers after the first eviction."""
    if not any(m.nll or m.grams for m in measured.values()):
        return wrap("Nothing was evicted before the last turn: this says nothing about any method.")
    rows = [[name, number(m.reply_nll), f"{m.repeated:.0%}" if m.grams else "-"] for name, m in measured.items()]
    header = ["method", "nats per token of the replies", "repeated 4-grams"]
    scored = [(name, m.nll) for name, m in measured.items() if len(m.nll) > 1]
    pairs = [(f"{a} - {b}", x, y) for (a, x), (b, y) in pairwise(scored) if len(x) == len(y)]  # on the same words
    gaps = "".join("\n" + wrap(f"{both}: {paired(x, y)} nats per token (standard error)") for both, x, y in pairs)
    return wrap("After the first eviction:") + "\n" + table(header, rows) + gaps
