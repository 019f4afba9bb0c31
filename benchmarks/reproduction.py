"""The page with every experiment of `minisink reproduce`, on the models that ship and on SmolLM2, with three seeds.

    python benchmarks/reproduction.py --results /tmp/results                                 # an hour and a half
    python benchmarks/reproduction.py --results /tmp/results --write docs/reproduction.md    # from results to a page

Each run is a separate command that leaves its findings, rows and picture in the folder of results, and is not repeated
if they are already there. The page has the effects of seed 0 and the verdicts of all seeds; the pictures go next to it.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import page  # noqa: E402
from measure import say  # noqa: E402

from minisink.commands.reproduce import EXPERIMENTS  # noqa: E402
from minisink.experiments.effects import Effect  # noqa: E402

REAL = "smollm2"
SEEDS = (0, 1, 2)
# What there is time for on a real model. On the models that ship, everything runs with its defaults.
ON_REAL = {
    "streameval": ["--distances", "2", "5", "20", "40", "--caches", "128"],
    "pass-key": ["--lengths", "500", "1000", "--depths", "0", "0.5"],
    "rules": ["--n-sinks", "4", "--windows", "60", "--tokens", "420"],
    "policies": ["--n-sinks", "4", "--tokens", "420", "--names", "0"],  # covered by the other run
}
WITHOUT_REAL = ("emergence", "cures")  # logs of training runs, and toys
SECTION = "## Each experiment"


def main():
    """Run what is missing, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--names", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--models", nargs="+", choices=("shipped", REAL), default=["shipped", REAL])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--write", type=Path, metavar="FILE", help="the Markdown page to put this section into")
    args = parser.parse_args()
    if not args.write:
        for seed in args.seeds:
            for model in args.models:
                for name in args.names:
                    run(args.results, name, model, seed)
        return
    page.put_section(args.write, list(lines(args.results, args.write)))


def options_of(name, model):
    """Return an experiment's options on the models that ship or on a real one, or None if there is nothing to run."""
    takes_real = getattr(EXPERIMENTS[name].module, "MODEL", "") == REAL
    if model == "shipped":
        return ["--model", "novels", "--fast"] if takes_real else []
    if name in WITHOUT_REAL:
        return None
    return ["--model", REAL, *ON_REAL.get(name, ["--fast"])]


def run(results, name, model, seed):
    """Run one command, unless its findings are already there."""
    options, folder = options_of(name, model), results / model / str(seed)
    if options is None or (folder / f"{name}.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "minisink", "reproduce", name, *options, "--seed", str(seed), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    say(f"{name}, {model}, seed {seed}: {done.stderr.strip() or 'done'}")


def found(results, name, model, seed):
    """Return what a run left, or None."""
    path = results / model / str(seed) / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def lines(results, path):
    """Yield the section: a table of all experiments, then each with its effects and picture."""
    yield SECTION
    yield ""
    yield f"- command: `{page.command()}`"
    yield from page.machine()
    yield ""
    verdicts = {
        (name, model): {seed: seen["shown"] for seed in SEEDS if (seen := found(results, name, model, seed))}
        for name in EXPERIMENTS
        for model in ("shipped", REAL)
    }
    rows = []
    for name, experiment in EXPERIMENTS.items():
        both = [" / ".join(verdicts[name, model].values()) or "-" for model in ("shipped", REAL)]
        rows.append([f"[`{name}`](#{name})", experiment.module.PAPER, *both])
    yield from page.table(
        ["name", "paper", "verdict on the shipped models, seeds 0 / 1 / 2", "on SmolLM2, same seeds"], rows
    )
    pictures = path.parent / path.stem
    pictures.mkdir(exist_ok=True)
    for name, experiment in EXPERIMENTS.items():
        yield f"### {name}"
        yield f"{experiment.PURPOSE}. The paper: *{experiment.module.CLAIM}.*"
        yield ""
        for model in ("shipped", REAL):
            seen = found(results, name, model, SEEDS[0])
            if seen:
                yield from findings(seen, verdicts[name, model])
                picture = results / model / str(SEEDS[0]) / f"{name}.png"
                if picture.exists():
                    shrink(picture, pictures / f"{name}-{model}.png")
                    yield f"![{in_words(name, seen['finding'])}]({path.stem}/{name}-{model}.png)"
                    yield ""


def in_words(name, finding):
    """Return what a picture shows and what was found, as its alternative text."""
    drawn = EXPERIMENTS[name].module.draw.__doc__.split("\n")[0].removeprefix("Draw ")
    return f"{drawn[0].upper()}{drawn[1:]} {finding}"


def shrink(picture, path):
    """Save a picture at most 1,100 pixels wide and in 64 colours: enough for a page, and a third of the bytes."""
    from PIL import Image  # comes with matplotlib

    with Image.open(picture) as whole:
        small = whole.convert("RGB")
        small.thumbnail((1100, 1100))
        small.quantize(64).save(path, optimize=True)


def findings(seen, verdicts):
    """Yield what one run shows, and whether that survives other seeds."""
    each = "; ".join(f"seed {seed}: {shown}" for seed, shown in verdicts.items())
    yield f"Verdict of `{seen['command']}`: **{seen['shown']}** ({each})."
    yield ""
    for found in seen["effects"]:
        numbers = {key: math.nan if found[key] is None else found[key] for key in ("size", "low", "high")}
        yield f"- {Effect(found['what'], **numbers, above=found['above'], below=found['below'])}"
    yield ""


if __name__ == "__main__":
    main()
