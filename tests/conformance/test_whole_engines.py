"""Whole engines over the recorded losses: transformers with a sink layer, a server behind HTTP, and their page."""

import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

import minisink
from minisink import Dense, Streaming, conformance

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "engines"
PAGE = (ROOT / "docs" / "check-your-engine.md").read_text(encoding="utf-8")

with pytest.MonkeyPatch.context() as patch:  # the scripts import each other by their bare names
    patch.syspath_prepend(str(FOLDER))
    import http_logprobs
    from verdict import golden_of, sizes_of, table, verdict

SETTINGS = [("dense", 1), ("dense", 64), ("1+15", 1), ("4+12", 1), ("4+60", 1), ("4+60", 7), ("4+252", 64)]
QUIET = [pytest.mark.filterwarnings(f"ignore:::{package}") for package in ("torch", "transformers")]


# transformers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers_sinks():
    """The runner, and a function of its losses, the model that ships loaded in single precision."""
    pytest.importorskip("torch", reason="transformers needs torch")
    pytest.importorskip("transformers", reason="no transformers")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import transformers_sinks
    return transformers_sinks


@pytest.fixture(scope="module")
def engine(transformers_sinks, tmp_path_factory):
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("novels")
    minisink.load("novels").save(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


@pytest.mark.slow
class TestTransformers:
    pytestmark = QUIET

    @pytest.mark.parametrize(("setting", "chunk"), SETTINGS)
    def test_with_a_sink_layer_it_is_right(self, setting, chunk, transformers_sinks, engine):
        golden = golden_of(setting)
        losses = transformers_sinks.losses_of(engine, golden.ids.tolist(), *sizes_of(golden), chunk=chunk)
        assert conformance.check_losses(losses, golden) is None

    @pytest.mark.parametrize(("setting", "chunk"), SETTINGS[2:])
    def test_its_mistakes_are_found_where_they_first_matter(self, setting, chunk, transformers_sinks, engine):
        """One key too many or too few; a sink too few, which is missed a token earlier; sinks left where they were."""

        class LeftWhereTheyWere(transformers_sinks.SinkLayer):
            def __init__(self, n_sinks, window, rotary):
                super().__init__(n_sinks, window, lambda keys, moved: rotary(keys, 0 * moved))

        golden = golden_of(setting)
        s, w = sizes_of(golden)
        ids = golden.ids[: s + w + 40].tolist()  # a mistake has shown by then
        for first, sizes, options in (
            (s + w + 1, (s, w + 1), {}),
            (s + w, (s, w - 1), {}),
            (s + w, (s - 1, w), {}),
            (s + w + 1, (s, w), {"layer": LeftWhereTheyWere}),
        ):
            losses = golden.losses.copy()
            losses[: len(ids) - 1] = transformers_sinks.losses_of(engine, ids, *sizes, chunk=chunk, **options)
            assert conformance.check_losses(losses, golden) == first


# HTTP -----------------------------------------------------------------------------------------------


class Completions(BaseHTTPRequestHandler):
    """OpenAI's completions as far as a prompt's log-probabilities go, and minisink behind them.

    It goes on from the prompt before if the new one begins with it.
    """

    model, method, echoes = None, None, True
    ids, logprobs, last, cache = (), (), None, None

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/completions" and asked["echo"] and asked["max_tokens"] == 1
        self.read(asked["prompt"])
        logprobs = [*self.logprobs, -1.0] if self.echoes else [-1.0]
        answer = {"choices": [{"logprobs": {"token_logprobs": logprobs}}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def read(self, ids):
        cls = type(self)  # a handler is made anew for each request
        if cls.cache is None or ids[: len(cls.ids)] != list(cls.ids):
            cls.ids, cls.logprobs, cls.cache = [], [None], minisink.new_cache(self.model, self.method)
        logits = self.model.forward(new := ids[len(cls.ids) :], cache=cls.cache)
        rows = logits[:-1] if not cls.ids else np.concatenate((cls.last, logits[:-1]))
        logs = rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)
        cls.logprobs += logs[range(len(rows)), new[-len(rows) :]].tolist() if len(rows) else []
        cls.ids, cls.last = ids, logits[-1:]

    def log_message(self, *args):
        pass


@contextmanager
def served(method, **more):
    """The URL of a server of `novels` that has this method."""
    handler = type("Handler", (Completions,), {"model": minisink.load("novels"), "method": method, **more})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.mark.parametrize(
    ("setting", "chunk"),
    [("dense", None), ("4+12", None), ("4+12", 100), pytest.param("4+12", 1, marks=pytest.mark.slow)],
)
def test_a_server_is_right_in_one_request_and_in_many(setting, chunk):
    golden = golden_of(setting)
    with served(golden.method) as url:
        losses = http_logprobs.losses_of(url, golden.ids.tolist(), chunk)
    assert conformance.check_losses(losses, golden) is None


def test_a_server_with_one_key_too_many_is_found():
    golden = golden_of("4+12")
    with served(Streaming(4, 13)) as url:
        assert conformance.check_losses(http_logprobs.losses_of(url, golden.ids.tolist()), golden) == 17


def test_a_server_that_does_not_echo_is_refused():
    with served(Dense(), echoes=False) as url, pytest.raises(ValueError, match="8 tokens went in and 0 came back"):
        http_logprobs.losses_of(url, list(range(8)))


# The verdict ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_mistake_is_named_by_the_setting_or_by_the_gallery():
    golden, model = golden_of("4+12"), minisink.load("novels")
    said = verdict(minisink.token_nll(model, golden.ids, Streaming(3, 12)), golden)
    assert "first wrong token 16 (capacity) of 600" in said and "losses of Streaming(n_sinks=3, window=12" in said
    said = verdict(minisink.token_nll(model, golden.ids, Streaming(4, 13)), golden)
    assert "first wrong token 17 (capacity + 1) of 600" in said and "it looks like 'one key too many'" in said
    wrong = golden.losses.copy()
    wrong[99:] += 1
    assert "first wrong token 100 of 600" in (said := verdict(wrong, golden)) and said.endswith("of the gallery")


def test_a_setting_that_was_not_recorded_is_refused():
    with pytest.raises(ValueError, match=r"no recorded losses of '9\+9'; it has dense, 0\+16, 1\+15"):
        golden_of("9+9")


# The page -------------------------------------------------------------------------------------------


def test_a_runner_has_forty_lines():
    for name in ("transformers_sinks", "llama_cpp_sinks", "http_logprobs"):
        assert len((FOLDER / f"{name}.py").read_text("utf-8").splitlines()) <= 40, name


def printed(command):
    """What the page has below a command."""
    return re.search(rf"^\$ {re.escape(command)}\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)[1]


def run(command, cwd):
    """What a command of the page prints, its scripts those of this repository."""
    script, *rest = command.split()[1:]
    command = [sys.executable, "-W", "ignore", ROOT / script, *rest]
    return subprocess.run(command, cwd=cwd, capture_output=True, encoding="utf-8").stdout


def rounded(text):
    """Leave out versions, and how far a right engine is off: that is the machine's rounding."""
    text = re.sub(r"off by at most \de-0[67] of", "off by at most SMALL of", text)
    return re.sub(r"^transformers .*", "VERSIONS", text, flags=re.MULTILINE)


@pytest.mark.slow
def test_the_page_from_nothing_to_a_verdict(tmp_path, monkeypatch, capsys):
    """Its blocks in their order in an empty folder, then the command; and what it wrote is read back."""
    pytest.importorskip("gguf", reason="needs gguf")
    monkeypatch.chdir(tmp_path)
    names, shown = {"__name__": "page"}, re.findall(r"```python\n(.*?)```\nprints\n```\n(.*?)```", PAGE, re.DOTALL)
    assert len(shown) == PAGE.count("```python") == 2
    for code, below in shown:
        exec(compile(code, "check-your-engine.md", "exec"), names)
        assert capsys.readouterr().out == below
    command = "python benchmarks/engines/verdict.py losses.json 4+12"
    assert run(command, tmp_path) == printed(command)
    ids = names["golden"].ids.tolist()
    for path in ("novels", "novels.gguf"):
        model = minisink.load(path)
        assert model.encode(model.decode(ids[1:])).tolist() == ids == json.loads(Path("ids.json").read_text("utf-8"))


@pytest.mark.slow
def test_the_table_of_the_page():
    assert table() in PAGE


@pytest.mark.slow
def test_what_the_page_prints_of_transformers(transformers_sinks, tmp_path):
    command = "python benchmarks/engines/run.py transformers"
    assert rounded(run(command, tmp_path)) == rounded(printed(command))


def test_what_the_page_says_of_llama_cpp_was_printed():
    """Nine settings right, and what float16 hides; lines of the file that is kept."""
    kept = (FOLDER / "llama_cpp.txt").read_text("utf-8")
    section = PAGE[PAGE.index("## llama.cpp") : PAGE.index("## What it cannot see")]
    lines = [line for block in re.findall(r"```\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    from_file = [line for line in lines if ": novels, " in line]
    assert len(from_file) == 13 and set(from_file) <= set(kept.splitlines())
    assert sum(": right, 600 tokens" in line for line in from_file[:9]) == 9
