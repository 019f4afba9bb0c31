"""A whole engine checked against the recorded losses of `novels`: as it should be, and with deliberate mistakes.

    python benchmarks/engines/run.py transformers     # needs the extra `parity`
    python benchmarks/engines/run.py llama.cpp        # needs the extra `bench`

llama_cpp.txt is a record of what it prints for llama.cpp; for transformers, a test reads the output.
"""

import sys
import tempfile
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from verdict import golden_of, sizes_of, verdict

import minisink
from minisink.hf import gguf_model

RIGHT = ("dense", 1), ("dense", 64), ("1+15", 1), ("4+12", 1), ("4+60", 1), ("4+60", 7), ("4+252", 64)
OTHER_RULES = {"4+28.half": {"leave": 14}, "4+60.original": {"shift": False}}  # for llama.cpp


def transformers(folder):
    """Return a function that reads ids with transformers, and mistakes by name: the extra options that cause them."""
    from transformers import AutoModelForCausalLM
    from transformers_sinks import SinkLayer, losses_of

    class LeftWhereTheyWere(SinkLayer):
        def __init__(self, n_sinks, window, rotary):
            super().__init__(n_sinks, window, lambda keys, moved: rotary(keys, 0 * moved))

    minisink.load("novels").save(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return partial(losses_of, model), {"the sinks are not rotated on": {"layer": LeftWhereTheyWere}}


def llama_cpp(folder):
    """Return a function that reads ids with llama.cpp, and mistakes by name: the extra options that cause them."""
    from llama_cpp import GGML_TYPE_F16
    from llama_cpp_sinks import losses_of

    model, path = minisink.load("novels"), str(Path(folder) / "novels.gguf")
    gguf_model.write(path, model.config, model.arrays())
    in_half = {"dtype": GGML_TYPE_F16}  # llama.cpp's default
    return partial(losses_of, path), {
        "nothing is shifted": {"shift": False},
        "half of the window is evicted at once": {"leave": 6},
        "keys and values in float16": in_half,
        "keys and values in float16, 3 % allowed": in_half | {"tolerance": 0.03},
        "keys and values in float16, 3 % allowed, and n_sinks - 1": in_half | {"tolerance": 0.03, "n_sinks": 3},
    }


ENGINES = {"transformers": (transformers, "transformers", "torch"), "llama.cpp": (llama_cpp, "llama_cpp_python")}
EXTRAS = {"transformers": "parity", "llama.cpp": "bench"}


def main(name):
    """Print a verdict on each setting, and on each mistake."""
    make, *packages = ENGINES[name]
    try:
        print(*[f"{package} {version(package)}" for package in packages], sep=", ", end=":\n")
    except PackageNotFoundError as error:
        sys.exit(f"{error}: pip install -e '.[{EXTRAS[name]}]'")
    with tempfile.TemporaryDirectory() as folder:
        losses_of, mistakes = make(folder)
        for setting, chunk in RIGHT:
            golden = golden_of(setting)
            losses = losses_of(golden.ids.tolist(), *sizes_of(golden), chunk=chunk)
            print(f"chunks of {chunk}: {verdict(losses, golden, chunk)}")
        for setting, options in OTHER_RULES.items() if name == "llama.cpp" else ():
            golden = golden_of(setting)
            print(f"{setting}:", verdict(losses_of(golden.ids.tolist(), *sizes_of(golden), **options), golden))
        golden = golden_of("4+12")
        for mistake, options in ({"window + 1": {"window": 13}, "n_sinks - 1": {"n_sinks": 3}} | mistakes).items():
            options = {"n_sinks": 4, "window": 12, "tolerance": None} | options
            tolerance = options.pop("tolerance")
            losses = losses_of(golden.ids.tolist(), **options)
            print(f"\n{mistake}: {verdict(losses, golden, tolerance=tolerance)}")


if __name__ == "__main__":
    if sys.argv[1:] not in [[name] for name in ENGINES]:
        sys.exit(f"usage: python benchmarks/engines/run.py {'|'.join(ENGINES)}")
    main(sys.argv[1])
