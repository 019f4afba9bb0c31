"""The report on a cache: where it first goes wrong, and which mistake that looks like."""

from dataclasses import dataclass

from ..system.terminal import count, in_runs
from ..wrong_turns.right import Cache
from .policies import MEANS
from .traces import Trace

MOST = 3  # the most wrong turns that a report names
SMALL = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.02}  # a smaller share of the largest number is rounding
SMALL_IN_DOUBLE = 1e-4  # the same for all other dtypes: the error of single precision


@dataclass(frozen=True)
class Difference:
    """One place where a cache differs from a trace."""

    trace: Trace
    token: int
    layer: int
    what: str  # "slots", "positions", "keys", "scores", "outputs" or "memory"
    says: str  # the answer, and the expected one
    again: bool = False  # whether the cache read the trace for the second time

    def __str__(self):
        held, places = (in_runs(of(self.token, self.layer)) for of in (self.trace.held, self.trace.places))
        at = "embedded at" if self.trace.embeds else "at positions"
        differ = "differs" if self.what == "memory" else "differ"
        where = f"{self.trace}{', read again' * self.again}: token {self.token}, layer {self.layer}"
        return f"{where}: {self.what} {differ}: {self.says}\n  there the query sees tokens {held}, {at} {places}"


@dataclass(frozen=True)
class Report:
    """The result of `check`; true if the cache is right."""

    traces: tuple[Trace, ...]  # that were run
    first: Difference | None = None  # the earliest token at which anything differs
    failed: tuple[Trace, ...] = ()  # in which something differs, or the cache raised
    layers: tuple[int, ...] = ()  # in which something other than memory differs
    looks_like: tuple[type[Cache], ...] = ()  # the known wrong turns that give the cache's answers
    until: int | None = None  # the last token up to which they do, in the trace of `first`; None if everywhere
    worst: float = 0.0  # the largest difference of an output, as a share of the largest number expected
    error: str | None = None  # the cache's error, or bad answer, that ended a trace
    dtype: str = "float64"  # of the outputs
    unchecked: tuple[str, ...] = ()  # for a right cache: what was not checked, and how to check it
    right_under: tuple[str, ...] = ()  # names of other policies under which the cache is right

    def __bool__(self):
        return self.first is None

    def __str__(self):
        traces = count(len(self.traces), "trace")
        if self.first is None:
            line = f"right in {traces} of {count(max(len(trace.q) for trace in self.traces), 'token')}"
            under = ", ".join(dict.fromkeys(trace.policy_name for trace in self.traces))
            line += f" under policy {under!r}" * (under != "streaming")
            names = dict.fromkeys(trace.encoding_name for trace in self.traces if trace.encoding)
            line = ", ".join([line, *names, f"off by at most {self.worst:.1g} of the largest number"])
            if still := [trace for trace in self.traces if not trace.evicts]:
                line += f"\n  but nothing was evicted in {len(still)} of them: take more tokens{_longer(still[0])}"
            return f"{line}\n  not checked: {', '.join(self.unchecked)}" if self.unchecked else line
        n, layers = len(self.layers), " and ".join(map(str, self.layers))
        only = f", in layer{'s' * (n > 1)} {layers} only" if 0 < n < self.first.trace.q.shape[1] else ""
        lines = [str(self.first), f"  wrong in {len(self.failed)} of {traces}{only}"]
        for name in self.right_under:
            what = MEANS[name.partition(":")[0]]
            lines.append(f"  it is right under policy {name!r} ({what}): check(cache, policy={name!r})")
        upto = "" if self.until is None else f"up to token {self.until} "
        upto = "in this trace " if self.until == len(self.first.trace.q) - 1 else upto
        for wrong in () if self.right_under and upto else self.looks_like[:MOST]:
            lines.append(f"  {upto}it looks like {wrong.name!r}: {wrong.diagnosis()}")
        if self.right_under:
            return "\n".join(lines)
        if not self.looks_like and self.first.what == "outputs" and self.worst < SMALL.get(self.dtype, SMALL_IN_DOUBLE):
            small = f"outputs are off by {self.worst:.1g} of the largest at most: rounding rather than another token"
            lines.append(f"  {small}; take angles in double precision, rotate stored keys once, or check in float64")
        elif not self.looks_like:
            lines.append("  it looks like no wrong turn known here")
        return "\n".join([*lines, f"  also: {self.error}"] if self.error else lines)


def _longer(trace):
    """Return the call that draws a trace long enough for a named policy that holds more than StreamingLLM."""
    most, sizes, name = trace.policy.capacity, f"n_sinks={trace.n_sinks}, window={trace.window}", trace.policy_name
    if name == "streaming" or name == repr(trace.policy) or most is None:
        return ""
    return f", such as conformance.drawn({sizes}, n_tokens={4 * most}, policy={name!r})"
