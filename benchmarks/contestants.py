"""What decodes besides minisink, with the same weights, visible keys and threads; first, the logits must be the same.

A contestant is made by a function of a `Setting` and returns a *turn*: a function that decodes for about the given
seconds and returns the seconds per token. It has run once before its first turn. If it cannot run at all it raises
`LeftOut`. Those in their own processes sleep between their turns.
"""

import os
import re
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from formats import write_llama2c

import minisink
from minisink.experiments import speed
from minisink.hf import gguf_model
from minisink.hf.folder import raw_of, to_tensors

SMALL = 200_000_000  # parameters of a model that may be copied once more


@dataclass
class Setting:
    """What every contestant is given."""

    model: minisink.Model
    cache: int  # keys that a query sees
    threads: int
    folder: Path  # empty, for files it may need
    at_end: ExitStack  # what it leaves to be closed
    llama2c: str | None = None  # path of llama2.c's `run`
    sinks_python: str | None = None  # path of a python that has attention_sinks


class LeftOut(Exception):
    """A contestant that does not run here, and why."""


def steadily(step):
    """Return the turn of a function of one token; a first one, untimed, fetches its weights again."""
    step()

    def turn(seconds):
        step()
        start, n = time.perf_counter(), 0
        while True:
            step()
            n += 1
            took = time.perf_counter() - start
            if took >= seconds:
                return took / n

    return turn


def check_logits(name, theirs, ours):
    """Refuse to compare the speed of something else."""
    if not np.allclose(theirs, ours, atol=2e-3 * abs(ours).max()):
        raise AssertionError(f"{name} gives other logits, so this is not the same model")


def ours(setting):
    """Stream with 4 sinks through `Decoder`, with a full cache.

    Two turns, the second of the matrix-vector products that it cannot do without.
    """
    decoder = speed.full_decoder(setting.model, setting.cache)
    return steadily(lambda: decoder.step(0)), steadily(speed.floor(decoder))


def readable(setting):
    """Call `Model.forward` with a full `KVCache`, following the paper step by step."""
    model, n = setting.model, setting.cache
    cache = minisink.new_cache(model, minisink.Streaming(4, n - 4))
    model.forward(np.arange(n), cache=cache)
    return steadily(lambda: model.forward([0], cache=cache))


def uncached(setting):
    """Recompute the whole window for every token, as picoGPT does."""
    ids = np.arange(setting.cache)
    return steadily(lambda: setting.model.forward(ids)[-1])


def transformers_eager(setting):
    """Run torch in eager mode, with its DynamicCache cut back to the same length after each token."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise LeftOut("torch and transformers are not installed: pip install 'minisink[parity]'") from error
    model = setting.model
    torch.set_num_threads(setting.threads)
    transformers.logging.set_verbosity_error()
    config = transformers.AutoConfig.for_model(**raw_of(model.config))
    with torch.device("meta"):  # no memory for weights that are replaced at once
        theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    tensors = to_tensors(model.config, model.arrays())
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
    theirs.load_state_dict(tensors, strict=False, assign=True)
    theirs.tie_weights()
    for module in theirs.modules():  # what is not a weight is worked out again, in memory this time
        if type(module).__name__.endswith("RotaryEmbedding"):
            module.__init__(config)
    ids = torch.from_numpy(np.arange(setting.cache - 1))[None]
    with torch.no_grad():
        logits = theirs(ids[:, :32]).logits[0].numpy()
        check_logits("transformers", logits, model.forward(np.arange(32)))
        cache = theirs(ids, use_cache=True).past_key_values
    token = torch.zeros((1, 1), dtype=torch.int64)

    def step():
        with torch.no_grad():
            theirs(token, past_key_values=cache, use_cache=True)
            cache.crop(-1)

    return steadily(step)


def attention_sinks(setting):
    """Run transformers 4.34 with the cache from the attention_sinks package, in a separate process.

    The package wants a transformers of 2023: make an environment for it,
    ``pip install attention-sinks einops torch 'numpy<2'``, and pass the path of its python.
    """
    model = setting.model
    if setting.sinks_python is None:
        raise LeftOut("no --sinks-python given")
    if model.config.model_type != "llama":
        raise LeftOut("attention_sinks does not support GPT-2")
    if model.n_parameters > SMALL:
        raise LeftOut("this model is too large to hold in memory twice")
    model.save(setting.folder)
    worker = Path(__file__).with_name("sinks_worker.py")
    command = [setting.sinks_python, worker, setting.folder, str(setting.cache), str(setting.threads)]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = setting.at_end.enter_context(subprocess.Popen(command, text=True, **quiet))  # its input ends, so it does
    if process.stdout.readline().strip() != "ready":
        raise LeftOut(f"{setting.sinks_python} has no attention_sinks that runs")
    check_logits("attention_sinks", np.load(setting.folder / "logits.npy"), model.forward(np.arange(32)))

    def turn(seconds):
        print(seconds, file=process.stdin, flush=True)
        return float(process.stdout.readline())

    return turn


def llama_cpp(setting):
    """Call llama-cpp-python with float32 keys and values, cut back to the same length after each token."""
    try:
        import gguf  # noqa: F401
        import llama_cpp
    except ImportError as error:
        raise LeftOut("llama-cpp-python and gguf are not installed: pip install llama-cpp-python gguf") from error
    model, path, threads = setting.model, setting.folder / "model.gguf", setting.threads
    gguf_model.write(path, model.config, model.arrays())
    theirs = llama_cpp.Llama(
        str(path),
        n_ctx=2 * setting.cache,
        n_threads=threads,
        n_threads_batch=threads,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    setting.at_end.callback(theirs.close)
    theirs.eval(list(range(32)))
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(theirs.ctx), (model.config.vocab_size,))
    check_logits("llama.cpp", logits, model.forward(np.arange(32))[-1])
    theirs.reset()
    theirs.eval(list(range(setting.cache - 1)))

    def step():
        theirs.n_tokens = setting.cache - 1  # what comes after is dropped
        theirs.eval([0])

    return steadily(step)


def llama2c(setting):
    """Call `run` from an empty cache until it has twice as many keys, so the average is the same; it times itself.

    It prints the tokens too, which must be those that the model here likes best.
    """
    model, n_steps = setting.model, 2 * setting.cache
    if setting.llama2c is None:
        raise LeftOut("no --llama2c given")
    if model.config.model_type != "llama":
        raise LeftOut("llama2.c does not support GPT-2")
    if model.n_parameters > SMALL:
        raise LeftOut("llama2.c starts with an empty cache and takes minutes to fill one of this size")
    config = replace(model.config, norm_eps=1e-5, max_positions=n_steps)  # its own
    same = minisink.Model(config, model.weights, name=model.name)
    write_llama2c(same, setting.folder)
    command = [Path(setting.llama2c).resolve(), "model.bin", "-t", "0", "-n", str(n_steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(setting.threads)}

    def run():
        done = subprocess.run(command, cwd=setting.folder, env=environment, capture_output=True, text=True, check=True)
        tokens = [int(word) for word in done.stdout.split()]
        return tokens, 1.0 / float(re.search(r"achieved tok/s: ([0-9.]+)", done.stderr)[1])

    tokens, _ = run()
    if len(tokens) < n_steps:
        raise LeftOut(f"llama2.c ended its text after {len(tokens)} of {n_steps} tokens")
    likeliest = same.forward([1, *tokens[:31]]).argmax(axis=-1)  # it begins with token 1
    if likeliest.tolist() != tokens[:32]:
        raise AssertionError("llama2.c gives other tokens, so this is not the same model")
    return lambda _: run()[1]


OTHERS = {
    "minisink, readable": readable,
    "NumPy without a cache": uncached,
    "transformers, eager": transformers_eager,
    "transformers, attention_sinks": attention_sinks,
    "llama.cpp": llama_cpp,
    "llama2.c": llama2c,
}
