"""``minisink bench``: what a token costs."""

import os
from functools import partial

from ..experiments import speed
from ..experiments.shapes import SHAPES, random_model
from ..methods import Streaming
from ..model import load
from ..system.files import check_picture
from ..system.plots import picture
from ..system.terminal import wrap
from .common import add_json, add_model, add_readable, dump, progress
from .reproduce_report import plain

PURPOSE = "measure the cost per token of streaming and re-computation, against the floor"
EXAMPLE = "minisink bench --shape smollm2-135m --caches 256 1024 4096 --plot speed.png"


def add_options(parser):
    add = parser.add_argument
    add_model(parser, default=None)
    shapes = f"random weights of this shape, unless --model is given: {', '.join(SHAPES)} (%(default)s)"
    add("--shape", choices=SHAPES, default="novels", metavar="SHAPE", help=shapes)
    add("--caches", type=int, nargs="+", default=[*speed.IN_PAPER], metavar="N", help="cache sizes (256 to 4096)")
    kept = "first tokens kept by streaming (%(default)s)"
    add("--n-sinks", type=int, default=Streaming.n_sinks, metavar="N", help=kept)
    add("--repeats", type=int, default=3, metavar="N", help="runs, of which the median is shown (%(default)s)")
    add("--plot", metavar="PNG", help="plot milliseconds per token")
    add_readable(parser)
    add_json(parser)


def run(args):
    """Time each cache size, and print one row for each."""
    check_picture(args.plot)
    model = load(args.model) if args.model else random_model(args.shape, max_positions=max(args.caches))
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "all"
    sizes = {"caches": args.caches, "n_sinks": args.n_sinks, "repeats": args.repeats}
    rows = list(speed.run(model, **sizes, track=partial(progress, "bench")))
    options = {"n_sinks": args.n_sinks, "repeats": 3 * args.repeats, "readable": args.readable}
    decode = speed.decoding(model, cache=rows[0]["cache"], **options)
    title = f"{model.name}: {model.n_parameters:,} parameters, {model.dtype}, BLAS threads: {threads}"
    if args.json:
        about = {"model": model.name, "parameters": model.n_parameters, "threads": threads}
        dump(about | {"decode": decode, "rows": rows})
    else:
        _show(title, rows, decode, args)
    if args.plot:
        with picture(args.plot, f"{model.name}: {speed.finding(rows)}", title) as figure:
            speed.draw(figure, rows)


def _show(title, rows, decode, args):
    print(f"{title}\n")
    print(plain(rows))
    print(f"\nper token, median of {args.repeats}; bytes besides the weights;")
    print("paper: Llama-2-7B on an A6000, Figure 10")
    speed_now = f"{decode['decode_ms']:.3f} ms ({decode['tokens_per_second']:,.0f} tokens/s)"
    products = f"{decode['over_floor']:.2f} x the {decode['floor_ms']:.3f} ms of its matrix-vector products alone"
    late = f"at token 1,000,000 {decode['late_over_early']:.2f} x the time at token 1,000"
    print(wrap(f"decoding at cache {decode['cache']}: {speed_now}, {products}; {late}"))
    if args.readable:
        times = decode["readable_ms"] / decode["decode_ms"]
        print(f"through cache.py, every key rotated again: {decode['readable_ms']:.3f} ms, {times:.1f} x the time")
