"""``minisink inspect``: where the weight of every head goes."""

from ..experiments.inside import draw_inspection, look_inside, summary
from ..live.steps import steps
from ..methods import Dense, new_cache
from ..model import load
from ..system.files import atomic_write, check_folder, check_picture
from ..system.terminal import table, wrap
from .common import add_json, add_method, add_model, add_no_bos, as_json, dump, encode, method_of

PURPOSE = "show where the attention weight of every head goes"
EXAMPLE = 'minisink inspect "It was a dark night." --plot heads.png'


def add_options(parser):
    add = parser.add_argument
    add_model(parser)
    add("text", metavar="TEXT")
    add("--first", type=int, default=1, metavar="N", help="show the weight on the first N tokens (%(default)s)")
    add_no_bos(parser)
    add("--plot", metavar="PNG", help="plot where the weight goes")
    add_json(parser)
    add("--steps", metavar="FILE", help="write every step of a cache, from the readable path, for minisink live --play")
    add_method(parser.add_argument_group("the cache of --steps"))


def run(args):
    """Print one row per head."""
    check_picture(args.plot)
    check_folder(args.steps)
    if not args.steps and (args.method != "streaming" or args.window is not None):
        raise ValueError("--method and --window need --steps FILE; without it every token sees the whole text")
    model = load(args.model)
    ids = encode(model, args.text, "TEXT", bos=not args.no_bos)
    if args.steps:
        recorded = as_json(list(steps(model, ids, method_of(args, model, ids))))
        with atomic_write(args.steps) as unfinished:
            unfinished.write_text(recorded, encoding="utf-8")
        return
    trace = look_inside(model, ids, new_cache(model, Dense()) if args.readable else None)
    statistics = summary(trace, n_first=args.first)
    several = "token" if args.first == 1 else f"{args.first} tokens"
    if args.json:
        dump({"model": model.name, "tokens": len(ids), "first": args.first, **statistics})
    else:
        _show(model, ids, statistics, several)
    if args.plot:
        patterns = [layer["pattern"] for layer in trace["layers"]]
        tokens = [model.decode([i]).strip() or model.tokenizer.id_to_token(int(i)) for i in ids]
        draw_inspection(args.plot, patterns, statistics, tokens=tokens, name=model.name, several=several)


def _show(model, ids, statistics, several):
    first = model.tokenizer.id_to_token(int(ids[0]))
    print(f"{model.name}: {len(ids)} tokens, the first is {first!r}\n")
    rows = []
    for i, layer in enumerate(statistics["layers"]):
        for h, head in enumerate(layer["heads"]):
            lengths = [layer["residual_first"], layer["residual_median"], head["value_first"], head["value_median"]]
            weight = head["weight_on_first"]
            bar = ("#" * round(20 * weight)).ljust(20)
            rows.append([f"{i}.{h}", f"{weight:.0%}", bar, *(f"{x:.2f}" for x in lengths)])
    header = ["layer.head", "weight", f"on the first {several}".ljust(20), "|x| first", "median", "|v| first", "median"]
    print(table(header, rows))
    legend = "weight: mean over the tokens after the first; |x|: norm of the residual stream after the layer; "
    print("\n" + wrap(legend + "|v|: norm of the values; first: of the first token; median: over the others."))
    print(f"sink rate (share of heads that give the first token more than 0.3): {statistics['sink_rate']:.0%}")
