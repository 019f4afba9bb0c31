"""``minisink conformance``: files for any language that overwrite nothing, and a verdict with an exit status."""

import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open

import minisink
from minisink import conformance
from minisink.conformance import golden


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything that is written."""
    folder = tmp_path_factory.mktemp("written") / "golden"
    conformance.write_vectors(folder)
    return folder


@pytest.mark.slow
def test_the_traces_are_there_twice(folder):
    """As they are, and as safetensors: every array the same, theta and the config in the header."""
    for name, theta in (("llama", 10000.0), ("gqa", 500.0), ("gpt2", None)):
        assert (folder / f"{name}.npz").read_bytes() == (golden.FOLDER / f"{name}.npz").read_bytes()
        arrays = golden.read(name)
        with safe_open(folder / f"{name}.safetensors", "numpy") as file:
            about = json.loads(file.metadata()["about"])
            assert {*file.keys()} == {*arrays} - {"about"}
            for each in file.keys():
                assert file.get_tensor(each).dtype == arrays[each].dtype
                np.testing.assert_array_equal(file.get_tensor(each), arrays[each])
            assert json.loads(file.metadata()["theta"]) == about["theta"] == theta
            assert about["config"] == json.loads(str(arrays["about"]))["config"] and about["policy"] == "streaming"


@pytest.mark.slow
def test_the_losses_are_there_twice(folder):
    """As safetensors and as JSON, by setting."""
    for name in conformance.TEXTS:
        assert conformance.check_dump(folder / f"{name}.safetensors")
        read = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        losses = [read[f"{setting}.losses"] for setting in read["about"]["settings"]]
        assert losses == [each.losses.tolist() for each in conformance.losses(name)]
        longest = max((each.ids for each in conformance.losses(name)), key=len)
        assert read["ids"] == longest.tolist() and len(losses) >= 12
    about, arrays = conformance.texts.read("gate")
    gate = json.loads((folder / "gate.json").read_text(encoding="utf-8"))
    assert gate.pop("about") == about and gate == {name: array.tolist() for name, array in arrays.items()}


@pytest.mark.slow
def test_the_models_are_there_for_others(folder):
    """As folders and, where the softmax is the plain one, as GGUF: the losses of each are the recorded ones."""
    pytest.importorskip("gguf")
    for name in conformance.NAMES:
        trace = conformance.load(name)[1]
        for path in (folder / "models" / name, folder / "models" / f"{name}.gguf"):
            model = minisink.load(path, dtype="float64")
            losses = minisink.token_nll(model, trace.ids, minisink.Streaming(trace.n_sinks, trace.window))
            np.testing.assert_allclose(losses, trace.losses, rtol=1e-9)
    for name in conformance.TEXTS:
        golden_losses = conformance.losses(name)[2]
        for path in (folder / "models" / name, folder / "models" / f"{name}.gguf"):
            if name in ("novels-softmax1", "novels-sink-logit") and path.suffix == ".gguf":
                assert not path.exists()
                continue
            losses = minisink.token_nll(minisink.load(path), golden_losses.ids, golden_losses.method)
            assert conformance.check_losses(losses, golden_losses) is None


@pytest.mark.slow
def test_nothing_is_overwritten(folder, tmp_path, run):
    """A second time nothing changes; a file of another content stops it before any is written, and stays."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "mine.txt").write_text("mine", encoding="utf-8")
    status, out, err = run("conformance", "vectors", copy)
    assert (status, err) == (0, "") and out.startswith(f"{copy}: llama, gqa, gpt2, novels, ")
    everything = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    written = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert everything.pop((copy / "mine.txt").relative_to(copy)) == b"mine" and everything == written
    (copy / "gqa.npz").unlink()
    (copy / "models" / "gpt2" / "config.json").write_text("mine", encoding="utf-8")
    status, out, err = run("conformance", "vectors", copy)
    assert (status, out) == (2, "") and f"{copy}/models/gpt2/config.json: already exists, and is not over" in err
    assert (copy / "models" / "gpt2" / "config.json").read_text(encoding="utf-8") == "mine"
    assert not (copy / "gqa.npz").exists() and not list(copy.glob(".saving*"))


def test_a_folder_that_cannot_be(tmp_path, run):
    """A file in its place, no folder to make it in, or a policy of no name: status 2, and nothing is made."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    for words, said in (
        ([tmp_path / "file"], "file: cannot be written"),
        ([tmp_path / "none" / "golden"], "golden: cannot be written (No such file or directory)"),
        ([tmp_path / "golden", "--policy", "thirds"], "policy is 'thirds'; known are streaming"),
    ):
        status, out, err = run("conformance", "vectors", *words)
        assert (status, out, err.count("\n")) == (2, "", 1) and said in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_verdict_is_a_report_and_a_status(tmp_path, run):
    """0 right, 1 wrong, 2 not to be judged; the same as JSON."""
    right, wrong = golden.FOLDER / "gpt2.npz", tmp_path / "gpt2.npz"
    arrays = {name: golden.read("gpt2")[name] for name in ("4+3.out", "4+3.losses")}
    arrays["4+3.out"][20, 1] *= 1.5
    np.savez(wrong, **arrays)
    status, out, _ = run("conformance", "check", right)
    assert status == 0 and out.startswith("right in 4 traces of 24 tokens, off by at most 0 of the largest number\n")
    assert out.endswith("\nlosses are right: 0+5, 1+4, 4+3, 2+1\n")
    status, out, _ = run("conformance", "check", wrong)
    assert status == 1 and out.startswith("gpt2, n_sinks=4, window=3: token 20, layer 1: outputs differ: off by 0.5 of")
    assert out.splitlines()[-1].startswith("not checked: 0+5.out, 1+4.out, 2+1.out, 0+5.losses")
    status, out, _ = run("conformance", "check", wrong, "--json")
    about = json.loads(out)
    assert status == 1 and not about["right"] and about["report"].startswith("gpt2, n_sinks=4")
    first = {"n_sinks": 4, "window": 3, "token": 20, "layer": 1, "what": "outputs"}
    assert about["first"].items() >= first.items() and about["losses"] == {"4+3": ""} and len(about["not_checked"]) == 6
    status, out, _ = run("conformance", "check", right, "--json")
    assert (status, json.loads(out)["right"], json.loads(out)["first"]) == (0, True, None)
    status, out, err = run("conformance", "check", wrong, "--of", "gqa", "--policy", "half", "--tolerance", "9")
    assert status == 2 and "4+3.out has shape (24, 2, 2, 64)" in err
    assert run("conformance", "check", wrong, "--tolerance", "1")[0] == 0
    odd = tmp_path / "odd\n\x1b[31m\u202e.npz"
    status, out, err = run("conformance", "check", odd)
    assert (status, out, err.count("\n")) == (2, "", 1) and "\x1b" not in err and "\u202e" not in err
