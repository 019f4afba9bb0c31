"""Check your own cache against minisink, token by token: docs/check-your-cache.md shows how.

`check` runs your cache over traces with evictions, and reports at which token it first goes wrong and which known wrong
turn it looks like. The traces are recorded (`load`), or random and of any size (`drawn`).

>>> from minisink import conformance
>>> [(trace.n_sinks, trace.window) for trace in conformance.load("gqa")]
[(0, 5), (1, 4), (4, 3), (2, 1)]
"""

from ..wrong_turns import WRONG_TURNS, Cache
from .checking import check, check_losses
from .dump import Verdict, check_dump, replay, write_vectors
from .golden import NAMES, load, model
from .policies import POLICIES, named
from .report import Report
from .texts import TEXTS, Losses, losses
from .traces import Trace, drawn, trace_of

__all__ = ["NAMES", "POLICIES", "TEXTS", "WRONG_TURNS", "Cache", "Losses", "Report", "Trace", "check", "check_losses"]
__all__ += ["Verdict", "check_dump", "drawn", "load", "losses", "model", "named", "replay", "trace_of", "write_vectors"]
