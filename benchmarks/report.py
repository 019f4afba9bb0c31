"""The page of what `measure.py` found: the goals, why any of them is not reached, and every table."""

from dataclasses import dataclass

from page import command, count, machine, short, table

FLOORS = {"smollm2-135m": 1.15, "stories15m": 1.20, "novels": 3.0}  # times the floor that decoding may take


def page(results):
    """All lines; a result is that of one number of threads."""
    yield "# Benchmarks"
    yield ""
    yield "This page is written by the scripts in `benchmarks/`, and each section names its own. Rerun them to update"
    yield "every number."
    yield ""
    yield f"- command: `{command()}`"
    yield from machine()
    yield ""
    yield "All contestants run with the same random weights:"
    yield ""
    for name, what in results[0]["contestants"].items():
        yield f"- {name}: {what}"
    yield ""
    yield from goals(results)
    for result in results:
        for part in (decoding, blocks, recomputing, line_by_line):
            yield from part(result)


@dataclass
class Goal:
    """A goal, what was measured, and what is in the way if it is not reached."""

    what: str
    goal: str
    value: str
    reached: bool
    why: str


def goals(results):
    """All goals in one table, and the reasons."""
    yield "## Goals we set"
    yield ""
    threads = [count(result["threads"]) for result in results]
    rows, reasons = {}, []
    for column, result in enumerate(results):
        for goal in judged(result):
            row = rows.setdefault(goal.what, [goal.what, goal.goal] + ["–"] * len(results))
            row[2 + column] = goal.value if goal.reached else f"{goal.value}, **not reached**"
            if not goal.reached:
                reasons.append(f"- {goal.what}, {threads[column]}: {goal.why}")
    yield from table(["what", "goal", *threads], rows.values())
    if reasons:
        yield "Goals that were not reached, and why:"
        yield ""
        yield from reasons
        yield ""


def judged(result):
    """Yield every `Goal` whose numbers were measured."""

    def where(shape):
        listed = shape in result["lines"]
        return "its lines are timed below" if listed else f"`--lines {shape}` times its lines"

    decoding = {shape: found["seconds"] for shape, found in result["decoding"].items()}
    for shape, most in FLOORS.items():
        if shape in decoding:
            over = decoding[shape]["minisink"] / decoding[shape]["floor"]
            why = f"matrix-vector products are {1 / over:.0%} of a token's time; {where(shape)}"
            yield Goal(f"decode, `{shape}`: time relative to the floor", f"≤ {most}", f"{over:.2f}", over <= most, why)
    if "novels" in decoding:
        rate = 1 / decoding["novels"]["minisink"]
        yield Goal("decode, `novels`: tokens/s", "≥ 3,000", f"{rate:,.0f}", rate >= 3000, where("novels"))
    for shape, seconds in decoding.items():
        if "transformers, eager" in seconds:
            ratio, most = (seconds["transformers, eager"] / seconds[of] for of in ("minisink", "floor"))
            why = f"even the floor, the products alone, is only {short(most)} times as fast"
            why = why if most < 2 else where(shape)
            yield Goal(f"decode, `{shape}`: speed relative to transformers", "≥ 2", f"{ratio:.2f}", ratio >= 2, why)
    for row in result["blocks"]:
        if row["cache"] == 128:
            ratio = row["readable"] / row["blocks"]
            fast, slow = short(1e6 * row["blocks"]), short(1e6 * row["readable"])
            why = f"a token takes {fast} µs in a block and {slow} µs on its own"
            yield Goal(
                "perplexity, `novels`, cache 128: speed-up from blocks", "≥ 20", f"{ratio:.1f}", ratio >= 20, why
            )
    for row in result["recompute"].get("smollm2-135m", ()):
        if row["cache"] == 4096:
            ratio = row["ratio"]
            why = f"re-computing takes {short(row['recompute_ms'])} ms, streaming {short(row['streaming_ms'])}"
            what = "re-computing relative to streaming, `smollm2-135m`, cache 4096"
            yield Goal(what, "≥ 22.2", short(ratio), ratio >= 22.2, why)


def decoding(result):
    """One token after another: milliseconds, and how many times the floor."""
    shapes, cache = result["decoding"], result["cache"]
    yield f"## Decoding one token at a time, {count(result['threads'])}"
    yield ""
    yield f"Milliseconds per token in float32 with {cache} visible keys; the ratio to the floor is in brackets."
    yield f"{result['busy'].capitalize()}."
    yield ""
    names = dict.fromkeys(name for found in shapes.values() for name in (*found["seconds"], *found["left_out"]))

    def cell(name, seconds):
        if name not in seconds:
            return "–"
        over = f" ({short(seconds[name] / seconds['floor'])})" if name != "floor" else ""
        return short(1e3 * seconds[name]) + over

    rows = [[name, *(cell(name, found["seconds"]) for found in shapes.values())] for name in names]
    yield from table(["decoder", *shapes], rows)
    reasons = {}
    for shape, found in shapes.items():
        for absent in found["left_out"].items():
            reasons.setdefault(absent, []).append(shape)
    if reasons:
        yield "Left out:"
        yield ""
        for (name, reason), of in reasons.items():
            yield f"- {name}, {'all shapes' if len(of) == len(shapes) else ', '.join(of)}: {reason}"
        yield ""


def blocks(result):
    """Compare computing the loss of a text in blocks and one token at a time."""
    yield f"## Perplexity in blocks, `novels` shape, streaming, {count(result['threads'])}"
    yield ""
    yield "Tokens per second; the slowdown relative to blocks is in brackets."
    yield ""
    rows = []
    for row in result["blocks"]:
        singly = [f"{1 / row[name]:,.0f} ({short(row[name] / row['blocks'])})" for name in ("readable", "decoder")]
        rows.append([str(row["cache"]), f"{1 / row['blocks']:,.0f}", *singly])
    yield from table(["cache", "in blocks", "one at a time, `Model.forward`", "one at a time, `Decoder`"], rows)


def recomputing(result):
    """Figure 10, streaming and the sliding window with re-computation."""
    for shape, found in result["recompute"].items():
        yield f"## One token, streaming or re-computing the window, `{shape}` shape, {count(result['threads'])}"
        yield ""
        rows = []
        for row in found:
            measured = [short(row[name]) for name in ("streaming_ms", "recompute_ms", "ratio")]
            rows.append([str(row["cache"]), *measured, f"{row['paper_ratio']:.1f}"])
        header = ["cache", "streaming, ms", "re-computing, ms", "ratio", "paper's ratio: Llama-2-7B on an A6000"]
        yield from table(header, rows)


def line_by_line(result, least=0.02):
    """Where a token's time goes; lines below that share are added up."""
    for shape, lines in result["lines"].items():
        yield f"## Where a token's time goes, `{shape}` shape, {count(result['threads'])}"
        yield ""
        if shape in result["decoding"]:
            seconds = result["decoding"][shape]["seconds"]
            share = seconds["floor"] / seconds["minisink"]
            rest = f"everything else takes {1 - share:.0%}."
            yield f"Matrix-vector products alone take {share:.0%} of a token's time; {rest}"
            if "transformers, eager" in seconds:
                times = short(seconds["transformers, eager"] / seconds["floor"])
                yield f"transformers takes {times} times as long as these products."
            yield ""
        yield from timed(lines, least)


def timed(lines, least=0.02):
    """Return the table of such lines."""
    total = sum(s for _, s in lines)
    rows = [("`" + line.replace("|", "\\|") + "`", s) for line, s in lines if s >= least * total]
    rows.append(("all other lines", total - sum(s for _, s in rows)))
    yield from table(
        ["line", "µs per token", "share"], [[line, short(1e6 * s), f"{s / total:.0%}"] for line, s in rows]
    )
