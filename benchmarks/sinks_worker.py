"""The contestant attention_sinks, which needs its own Python. contestants.py starts it; do not run it by hand.

    python sinks_worker.py FOLDER CACHE THREADS

It loads the folder, writes the logits of tokens 0 to 31 to logits.npy, fills the cache and prints "ready". Then it
reads numbers of seconds, one per line, decodes for that long, and prints the seconds per token.
"""

import contextlib
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
with contextlib.redirect_stdout(sys.stderr):  # the package prints
    import numpy as np
    import torch
    from attention_sinks import AutoModelForCausalLM

    folder, cache, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    options = {"attention_sink_size": 4, "attention_sink_window_size": cache - 4}
    model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()

with torch.no_grad():
    np.save(folder / "logits.npy", model(torch.arange(32)[None]).logits[0].numpy())
    keys = None
    for token in range(cache + 8):
        keys = model(torch.tensor([[token]]), past_key_values=keys, use_cache=True).past_key_values
    print("ready", flush=True)
    for line in sys.stdin:
        start, n = 0.0, -1
        while n < 1 or time.perf_counter() - start < float(line):
            keys = model(torch.tensor([[0]]), past_key_values=keys, use_cache=True).past_key_values
            n += 1
            start = start if n else time.perf_counter()  # the first is not timed
        print((time.perf_counter() - start) / n, flush=True)
