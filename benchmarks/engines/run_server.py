"""llama-cpp-python's server against the recorded losses of `novels`: as it should be, and with a wrong rotary base.

    pip install "llama-cpp-python[server]" && python benchmarks/engines/run_server.py

llama_cpp.txt is a record of what it prints. The server evicts nothing, takes text rather than ids, and leaves out the
loss of the token after <s>.
"""

import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from http_logprobs import losses_of
from verdict import golden_of, verdict

import minisink
from minisink.hf import gguf_model

PORT = 8123
OPTIONS = "--n_ctx 1024 --logits_all true --type_k 0 --type_v 0 --port".split()  # keys and values in float32


@contextmanager
def served(path, *options):
    """Yield the URL of a server that serves a GGUF file."""
    command = [sys.executable, "-m", "llama_cpp.server", "--model", path, *OPTIONS, str(PORT), *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{PORT}/v1"
        while True:
            try:
                urllib.request.urlopen(f"{url}/models").close()
                break
            except urllib.error.URLError:
                if server.poll() is not None:
                    sys.exit("the server did not start: pip install 'llama-cpp-python[server]'")
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait()


def main():
    """Print a verdict for each set of options."""
    model, golden = minisink.load("novels"), golden_of("dense")
    ids = golden.ids.tolist()
    with tempfile.TemporaryDirectory() as folder:
        gguf_model.write(path := str(Path(folder) / "novels.gguf"), model.config, model.arrays(), model.tokenizer)
        for options in ([], ["--rope_freq_base", "20000"]):
            with served(path, *options) as url:
                losses = losses_of(url, ids, as_prompt=lambda ids: model.decode(ids[1:]), left_out=1)
            losses[0] = golden.losses[0]  # not known
            print(f"{' '.join(options) or 'as it is'}: {verdict(losses, golden)}")


if __name__ == "__main__":
    main()
