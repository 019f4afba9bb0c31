"""Decoding with minisink beside what people would use instead: same shapes, same threads, same run.

    python benchmarks/decode.py                                  # minisink alone, all shapes that fit a laptop
    python benchmarks/decode.py --write docs/benchmarks.md       # and the tables of the documentation
    OPENBLAS_NUM_THREADS=2 python benchmarks/decode.py --threads 2

Random weights of each shape go into every contestant (transformers gets the very same tensors, and its logits are
compared first). Each decodes a few tokens in turn, again and again; the median of its turns is shown. The contestants:

- minisink: `minisink.decoder.Decoder`, streaming with 4 sinks, the cache full;
- minisink, readable: `Model.forward` with a `KVCache`, the paper's own steps one after the other;
- transformers: torch in eager mode, float32, its DynamicCache cut back to the same length after each token. Runs if
  torch and transformers are there: pip install 'minisink[parity]';
- NumPy without a cache: the whole window again for each token, as picoGPT does.

llama.cpp and llama2.c are not run: they take no weights from memory, only from files of their own formats.
Threads are a setting of the process: --threads sets torch's and must agree with OPENBLAS_NUM_THREADS.
"""

import argparse
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import numpy as np  # noqa: E402

import minisink  # noqa: E402
from minisink.experiments import speed  # noqa: E402
from minisink.experiments.shapes import SHAPES, random_model  # noqa: E402

CACHE = 256


def main():
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shapes", nargs="+", choices=SHAPES, default=["novels", "stories15m", "smollm2-135m", "gpt2-124m"]
    )
    parser.add_argument("--threads", type=int, default=int(os.environ["OPENBLAS_NUM_THREADS"]))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each contestant's turn")
    parser.add_argument("--recompute", nargs="*", choices=SHAPES, default=["smollm2-135m"], help="shapes of Figure 10")
    parser.add_argument("--write", metavar="FILE", help="a Markdown page with all tables")
    args = parser.parse_args()
    if args.threads != int(os.environ["OPENBLAS_NUM_THREADS"]):
        parser.error(f"--threads {args.threads}, but OPENBLAS_NUM_THREADS is {os.environ['OPENBLAS_NUM_THREADS']}")
    page = [*header(args)]
    for part in (decoding(args), evaluation(), recomputing(args)):
        for line in part:
            print(line, flush=True)
            page.append(line)
    if args.write:
        Path(args.write).write_text("\n".join(page) + "\n", encoding="utf-8")


def header(args):
    """What was run, on what."""
    cpu = "unknown processor"
    if Path("/proc/cpuinfo").is_file():
        names = [
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ]
        cpu = f"{names[0]}, {len(names)} cores" if names else cpu
    versions = [f"Python {platform.python_version()}", f"NumPy {np.__version__}", f"minisink {minisink.__version__}"]
    versions += [f"{name} {library.__version__}" for name, library in libraries().items()]
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    yield "# Benchmarks"
    yield ""
    yield "Written by `benchmarks/decode.py`; run it again to replace every number on this page."
    yield ""
    yield f"- command: `OPENBLAS_NUM_THREADS={args.threads} python {' '.join(['benchmarks/decode.py', *sys.argv[1:]])}`"
    yield f"- machine: {cpu}, {platform.system()} {platform.machine()}{load}"
    yield f"- threads: {args.threads}; {', '.join(versions)}"
    yield "- GPU: not measured"
    yield ""


def libraries():
    """torch and transformers, if both are there."""
    try:
        import torch
        import transformers
    except ImportError:
        return {}
    return {"torch": torch, "transformers": transformers}


def decoding(args):
    """Lines: one token after another, beside the floor and beside the others."""
    yield f"## Decoding, one token at a time, {CACHE} tokens in the cache, float32"
    yield ""
    header = ["shape", "decoder", "ms per token", "tokens/s", "over the floor", "times slower than minisink"]
    yield markdown(header)
    for shape in args.shapes:
        model = random_model(shape, max_positions=4096)
        decoder = speed.full_decoder(model, CACHE)
        floor = "matrix-vector products alone (the floor)"
        contestants = {floor: speed.floor(decoder), "minisink": lambda decoder=decoder: decoder.step(0)}
        contestants |= {"minisink, readable": readable(model), "NumPy without a cache": uncached(model)}
        if libraries():
            contestants["transformers, eager"] = torch_decoder(model, args.threads)
        seconds = speed.interleaved(contestants, repeats=args.repeats, seconds=args.seconds)
        for name, s in seconds.items():
            over, slower = s / seconds[floor], s / seconds["minisink"]
            yield markdown(
                [shape, name, f"{1e3 * s:.3f}", f"{1 / s:,.0f}", f"{over:.2f}", f"{slower:.2f}"], first=False
            )
    yield ""
    yield "The floor is not a decoder: it reads every weight once, in the same order, and does nothing else."
    yield ""


def readable(model):
    """A step of `Model.forward` with a full KVCache."""
    cache = minisink.new_cache(model, n_sinks=4, window=CACHE - 4)
    model.forward(np.arange(CACHE), cache=cache)
    return lambda: model.forward([0], cache=cache)


def uncached(model):
    """A token from the whole window, as picoGPT does it."""
    ids = np.arange(CACHE)
    return lambda: model.forward(ids)[-1]


def torch_decoder(model, threads):
    """A step of transformers with the same weights and CACHE keys in sight; its logits are compared first."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    raw = model.config.to_hf()
    config = transformers.AutoConfig.for_model(**raw)
    config._attn_implementation = "eager"
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    tensors = model.architecture.to_tensors(model.config, model.weights)
    theirs.load_state_dict({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}, strict=False)
    ids = np.arange(CACHE - 1)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(ids)[None, :32]).logits[0].numpy()
        if not np.allclose(logits, model.forward(ids[:32]), atol=1e-3 * abs(logits).max()):
            raise AssertionError(f"{model.name}: transformers gives other logits, so this is not the same model")
        cache = theirs(torch.from_numpy(ids)[None], use_cache=True).past_key_values
    token = torch.zeros((1, 1), dtype=torch.int64)

    def step():
        with torch.no_grad():
            theirs(token, past_key_values=cache, use_cache=True)
            cache.crop(-1)

    return step


def evaluation():
    """Lines: the loss of a text in blocks beside one token at a time."""
    model = random_model("novels", max_positions=4096)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, 8193)
    yield "## Perplexity in blocks, `novels` shape, streaming"
    yield ""
    yield markdown(["cache", "in blocks, tokens/s", "one at a time, tokens/s", "ratio", "4,000,000 tokens in blocks"])
    for cache in (128, 256):
        options = {"n_sinks": 4, "window": cache - 4}
        kept = minisink.new_cache(model, **options)
        model.forward(ids[:cache], cache=kept)

        def blocks(options=options):
            start = time.perf_counter()
            for _ in minisink.nll_blocks(model, ids, **options):
                pass
            return (time.perf_counter() - start) / (len(ids) - 1)

        def singly(kept=kept, n=200):
            start = time.perf_counter()
            for token in ids[:n]:
                model.forward([token], cache=kept)
            return (time.perf_counter() - start) / n

        turns = [(blocks(), singly()) for _ in range(5)]
        fast, slow = np.median(turns, axis=0)
        cells = [str(cache), f"{1 / fast:,.0f}", f"{1 / slow:,.0f}", f"{slow / fast:.1f}", f"{4e6 * fast / 60:.1f} min"]
        yield markdown(cells, first=False)
    yield ""


def recomputing(args):
    """Lines: Figure 10, streaming beside the sliding window with re-computation."""
    for shape in args.recompute:
        yield f"## A token by streaming and by re-computing its window, `{shape}` shape"
        yield ""
        yield markdown(["cache", "streaming, ms", "re-computing, ms", "ratio", "paper: Llama-2-7B on an A6000"])
        for row in speed.compare(random_model(shape, max_positions=4096), repeats=max(1, args.repeats // 3)):
            cells = [
                str(row["cache"]),
                f"{row['streaming_ms']:.2f}",
                f"{row['recompute_ms']:.0f}",
                f"{row['ratio']:.1f}",
            ]
            yield markdown([*cells, f"{row['paper_ratio']:.1f}"], first=False)
        yield ""


def markdown(cells, first=True):
    """A row of a Markdown table; the first brings its ruler."""
    line = "| " + " | ".join(cells) + " |"
    return line + "\n|" + "---|" * len(cells) if first else line


if __name__ == "__main__":
    main()
