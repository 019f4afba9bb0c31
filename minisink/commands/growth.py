"""``minisink reproduce growth``: how a sink grows while the loss falls."""

from pathlib import Path

from ..experiments.growth import draw, read_logs
from ..system.files import check_picture
from ..system.resources import shipped, shipped_names
from ..system.terminal import table
from .common import add_json, dump

PURPOSE = "how sinks grow while the loss falls: the logs of trainings, beside each other"
EXAMPLE = "minisink reproduce growth --model novels my-training --plot growth.png"


def add_options(parser):
    """Add the options to `parser`."""
    add = parser.add_argument
    add("--model", nargs="+", metavar="MODEL", help="shipped names, or folders of trainings (all that ship)")
    add("--rows", type=int, default=6, metavar="N", help="to print of each log (%(default)s)")
    add("--plot", metavar="PNG", help="draw them as a picture")
    add_json(parser)


def run(args):
    """Print some rows of each log, and draw all."""
    if args.plot:
        check_picture(args.plot)
    if args.rows < 1:
        raise ValueError(f"--rows is {args.rows}; it must be 1 or more")
    folders = [shipped(name) if name in shipped_names() else Path(name) for name in args.model or shipped_names()]
    logs = {folder.name: read_logs(folder) for folder in folders}
    if args.json:
        dump(logs)
    else:
        _show(logs, args.rows)
    if args.plot:
        draw(args.plot, logs)


def _show(logs, n_rows):
    rows = []
    for name, log in logs.items():
        n = len(log["tokens"])
        for i in reversed(range(n - 1, -1, -max(1, n // n_rows))):  # the last row always
            weights = " ".join(f"{weight:.2f}" for weight in log["weight"][i])
            tokens, loss, gap = f"{log['tokens'][i] / 1e6:.1f}M", f"{log['loss'][i]:.2f}", f"{log['gap'][i]:+.3f}"
            rows.append([name, tokens, loss, weights, gap])
    print(table(["model", "tokens", "held out", "weight on the first token", "window - sink"], rows))
