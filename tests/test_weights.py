"""The models that ship: what their READMEs say is what is measured."""

import csv
import json
import re
import tarfile

import numpy as np
import pytest

import minisink
from minisink import Recompute, Streaming, Window
from minisink.experiments import four_methods
from minisink.experiments.emergence import LOGS
from minisink.hf.shipped import sample_text, shipped, shipped_names

NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
NAMES = shipped_names()


def stated(name, start):
    """Lines of a model's README from the one that begins with `start`, to the end of their block."""
    readme = (shipped(name) / "README.md").read_text(encoding="utf-8")
    where = readme.index(f"\n{start}") + 1
    return readme[where : readme.index("\n```", where)].splitlines()


def numbers(line):
    return [float(number.replace(",", "")) for number in NUMBER.findall(line)]


def last_rows(name):
    """Where each part of a model's training ended: the columns of its log by name, as text."""
    rows = []
    for path in sorted(shipped(name).glob(LOGS)):
        with open(path, newline="", encoding="utf-8") as file:
            rows.append(list(csv.DictReader(file))[-1])
    return rows


@pytest.fixture(scope="module")
def held_out(shared, tmp_path_factory):
    """Files of the novels that no model has been trained on."""
    folder = tmp_path_factory.mktemp("valid")
    with tarfile.open(shared / "corpus" / "valid.tar.xz") as archive:
        for member in archive.getmembers():
            if member.isfile():
                (folder / member.name.rpartition("/")[2]).write_bytes(archive.extractfile(member).read())
    return sorted(folder.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_whole(name):
    """A Hugging Face folder with its provenance."""
    folder = shipped(name)
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= names
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = {"gpt2": "GPT2LMHeadModel", "mpt": "MptForCausalLM", "gpt_neox": "GPTNeoXForCausalLM"}.get(
        about["model_type"], "LlamaForCausalLM"
    )
    assert (about["torch_dtype"], about["architectures"]) == ("float16", [kind])
    assert minisink.load(name).n_parameters <= 3_000_000


def test_all_weights_fit():
    """24 MB for the whole folder."""
    files = [path for path in shipped("novels").parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 24e6


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_sinks(name, held_out):
    """The cells of `reproduce sink-count` that take a second: cache 64, no sink and one."""
    first, header, _, row = stated(name, f"{name}: perplexity of")[:4]
    assert first.endswith(", ".join(path.stem for path in held_out))
    model = minisink.load(name)
    n_tokens = int(numbers(first.partition("perplexity of")[2])[0]) // len(held_out) + 1
    texts = [model.encode(path.read_text(encoding="utf-8"))[:n_tokens] for path in held_out]
    cells = dict(zip(re.split(r"\s{2,}", header), row.split(), strict=True))
    assert cells["cache"] == "64"
    for sinks, column in ((0, "0 sinks"), (1, "1 sink")):
        losses = [minisink.token_nll(model, ids, minisink.Streaming(sinks, 64 - sinks)) for ids in texts]
        assert minisink.perplexity(np.concatenate(losses)) == pytest.approx(float(cells[column]), abs=0.011)


@pytest.mark.parametrize("name", NAMES)
def test_the_end_of_the_log(name):
    """The losses that are stated are those of the last row."""
    last = last_rows(name)[-1]
    readme = (shipped(name) / "README.md").read_text(encoding="utf-8")
    words = f"{float(last['loss']):.2f} nats per token in training and {float(last['valid_loss']):.2f} on held-out"
    assert words in " ".join(readme.split())


@pytest.mark.parametrize("name", NAMES)
def test_the_summary_says_what_the_model_says(name):
    """Each cell of the two tables of `weights/README.md` stands in the README or the log of its model."""
    strength = [line.split() for line in stated(name, "sink rate")]
    parts = last_rows(name)
    last = parts[-1]
    ours = [f"{sum(float(part['tokens']) for part in parts) / 1e6:.1f}M"]
    ours += [f"{float(last['loss']):.2f}", f"{float(last['valid_loss']):.2f}"]
    ours += [strength[0][2].replace("%", " %"), " ".join(layer[1] for layer in strength[3:])]
    ours += [str(max(int(layer[4]) for layer in strength[3:])), f"{min(float(layer[3]) for layer in strength[3:]):.2f}"]
    perplexities = [line.split() for line in stated(name, f"{name}: perplexity of")[3:]]
    summary = (shipped(name).parent / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in summary.splitlines() if line[:1] == "|"]
    assert [row[1:] for row in rows if row[0] == f"[{name}]({name}/README.md)"] == [ours]
    assert [row[1:] for row in rows if row[0] == name] == [row for row in perplexities if row[1] != "-"]


@pytest.mark.slow
def test_the_demo_shows_the_gap():
    """A cache of 64, one sink: window attention is far above streaming, and that is as good as re-computation."""
    model = minisink.load("novels")
    ids = model.encode(sample_text().read_text(encoding="utf-8"))
    window, streaming = four_methods.run(model, ids, [Window(64), Streaming(1, 63)], cache=64)
    assert window["after"] / streaming["after"] >= 1.15
    again = Recompute(64, lead=(model.config.bos,))
    streaming, again = four_methods.run(model, ids[:1500], [Streaming(1, 63), again], cache=64)
    assert streaming["after"] == pytest.approx(again["after"], rel=0.01)
