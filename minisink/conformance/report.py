"""The report on a cache: where it first goes wrong, and what that looks like."""

from dataclasses import dataclass

from ..system.terminal import count, in_runs
from ..wrong_turns.right import Cache
from .traces import Trace

MOST = 3  # wrong turns that a report names
SMALL = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.02}  # share of the largest number below which it is rounding
SMALL_IN_DOUBLE = 1e-4  # the same of anything else: as much as single precision may be off


@dataclass(frozen=True)
class Difference:
    """One place where a cache differs from a trace."""

    trace: Trace
    token: int
    layer: int
    what: str  # "slots", "positions", "keys", "scores", "outputs" or "memory"
    says: str  # what came, and what was expected

    def __str__(self):
        held, places = (each(self.token, self.layer) for each in (self.trace.held, self.trace.places))
        at = "embedded at" if self.trace.theta is None else "at positions"
        held, places = in_runs(held), in_runs(places)
        differ = "differs" if self.what == "memory" else "differ"
        line = f"{self.trace}: token {self.token}, layer {self.layer}: {self.what} {differ}: {self.says}"
        return f"{line}\n  there the query sees tokens {held}, {at} {places}"


@dataclass(frozen=True)
class Report:
    """What `check` found; true if the cache is right."""

    traces: tuple[Trace, ...]  # that were run
    first: Difference | None = None  # the earliest token at which anything differs
    failed: tuple[Trace, ...] = ()  # in which something differs, or the cache raised
    layers: tuple[int, ...] = ()  # in which something differs; memory is that of all
    looks_like: tuple[type[Cache], ...] = ()  # the known wrong turns that answer as the cache does
    until: int | None = None  # the last token up to which they do, in the trace of `first`; None if everywhere
    worst: float = 0.0  # the largest difference of an output, as a share of the largest number expected
    error: str | None = None  # what the cache raised, or answered, that ended a trace
    dtype: str = "float64"  # of the outputs

    def __bool__(self):
        return self.first is None

    def __str__(self):
        traces = count(len(self.traces), "trace")
        if self.first is None:
            line = f"right in {traces} of {count(max(len(trace.q) for trace in self.traces), 'token')}"
            line += f", off by at most {self.worst:.1g} of the largest number"
            still = [trace for trace in self.traces if len(trace.q) <= trace.capacity]
            return f"{line}\n  but nothing was evicted in {len(still)} of them: take more tokens" if still else line
        lines = [str(self.first), f"  wrong in {len(self.failed)} of {traces}{self._layers_only(self.first.trace)}"]
        upto = "" if self.until is None else f"up to token {self.until} "
        upto = "in this trace " if self.until == len(self.first.trace.q) - 1 else upto
        for wrong in self.looks_like[:MOST]:
            lines.append(f"  {upto}it looks like {wrong.name!r}: {wrong.diagnosis()}")
        small = SMALL.get(self.dtype, SMALL_IN_DOUBLE)
        if not self.looks_like and self.first.what == "outputs" and self.worst < small:
            lines.append(
                f"  outputs are off by {self.worst:.1g} of the largest at most: rounding rather than another token; "
                "take angles in double precision, rotate stored keys once, or check in float64"
            )
        elif not self.looks_like:
            lines.append("  it looks like no wrong turn known here")
        return "\n".join([*lines, f"  also: {self.error}"] if self.error else lines)

    def _layers_only(self, trace):
        """Name the layers that differ, where others are right."""
        n = len(self.layers)
        right = 0 < n < trace.q.shape[1]
        return f", in layer{'s' if n > 1 else ''} {' and '.join(map(str, self.layers))} only" if right else ""
