"""``minisink conformance``: golden vectors for any language, and a verdict on a cache's answers."""

from typing import Any

from ..conformance.dump import check_dump, write_vectors
from ..conformance.golden import NAMES
from ..conformance.policies import POLICIES
from ..conformance.texts import TEXTS
from ..system.terminal import put
from .common import add_json, dump, progress

FIRST = ("n_sinks", "window", "token", "layer", "what", "says")  # the first difference in JSON


class Vectors:
    """``minisink conformance vectors``."""

    PURPOSE = "write golden vectors, golden losses and the models that made them, for any language"
    EXAMPLE = "minisink conformance vectors golden"

    def add_options(self, parser):
        """Add the folder and the policy."""
        parser.add_argument("folder", metavar="DIR", help="where to write; other files there are left alone")
        _add_policy(parser)

    def run(self, args):
        """Write all files, or none."""
        names = NAMES if args.policy else NAMES + TEXTS
        with progress("models", total=len(names), unit="model") as bar:
            write_vectors(args.folder, policy=args.policy, on_model=bar.update)
        put(f"{args.folder}: {', '.join(names)}; docs/check-your-cache.md describes the files")


class Check:
    """``minisink conformance check``."""

    PURPOSE = "check the answers of a cache or engine in any language against the golden vectors"
    EXAMPLE = "minisink conformance check answers/llama.safetensors"

    def add_options(self, parser):
        """Add the dump and the options for judging it."""
        add = parser.add_argument
        add("dump", metavar="DUMP", help="the answers: a .npz or .safetensors file laid out like the vectors")
        add("--of", metavar="NAME", help="which vectors they answer (from the file's name)")
        add("--tolerance", type=float, metavar="X", help="relative to the largest number (1e-4 in float32)")
        _add_policy(parser)
        add_json(parser, "print JSON instead of a report")

    def run(self, args):
        """Print the report; return 0 if the dump is right, 1 if it is wrong."""
        verdict = check_dump(args.dump, of=args.of, policy=args.policy, tolerance=args.tolerance)
        if args.json:
            dump(_as_json(verdict))
        else:
            put(str(verdict))
        return 0 if verdict else 1


def _add_policy(parser):
    names = ", ".join(POLICIES)
    parser.add_argument("--policy", metavar="NAME", help=f"policy the cache is meant to follow: {names} (streaming)")


def _as_json(verdict):
    first: Any = getattr(verdict.report, "first", None)
    looks_like = [wrong.name for wrong in getattr(verdict.report, "looks_like", ())]
    about = first and {name: (first.trace.sizes | vars(first))[name] for name in FIRST}
    found = {"right": bool(verdict), "first": about, "looks_like": looks_like, "losses": verdict.losses}
    return found | {"not_checked": verdict.missing, "report": str(verdict)}


COMMANDS = {"vectors": Vectors(), "check": Check()}
