"""What the wheel of a release carries packed is what it was: weights to the bit, golden vectors to the last digits."""

import importlib.util
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest

import minisink
from minisink import CheckpointError
from minisink.conformance import NAMES, golden
from minisink.hf.checkpoint import PACKED
from minisink.hf.shipped import shipped

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Folders as in a clone, packed by the script of a release."""
    pytest.importorskip("PIL", reason="comes with matplotlib")
    spec = importlib.util.spec_from_file_location("pack", ROOT / ".ci" / "pack.py")
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    clone = tmp_path_factory.mktemp("clone")
    shutil.copytree(shipped("novels-vanilla"), clone / "weights" / "novels-vanilla")
    shutil.copytree(golden.FOLDER, clone / "minisink" / "conformance" / "vectors")
    pack.pack_data(clone)
    return clone


def test_weights_come_out_to_the_bit(packed):
    folder = packed / "weights" / "novels-vanilla"
    assert not (folder / "model.safetensors").exists()
    assert (folder / PACKED).stat().st_size < 0.86 * (shipped("novels-vanilla") / "model.safetensors").stat().st_size
    unpacked, plain = minisink.load(folder).arrays(), minisink.load("novels-vanilla").arrays()
    assert unpacked.keys() == plain.keys()
    for name, array in plain.items():
        np.testing.assert_array_equal(unpacked[name], array)


@pytest.mark.parametrize("damage", ["cut", "turned", "other", "empty", "short"])
def test_damaged_packed_weights_are_said_in_one_line(packed, tmp_path, damage):
    shutil.copytree(packed / "weights" / "novels-vanilla", tmp_path / "model")
    raw = (tmp_path / "model" / PACKED).read_bytes()
    turned = bytearray(raw)
    turned[len(raw) // 2] ^= 1
    contents = lzma.decompress(raw)
    broken = {
        "cut": raw[:-1000],
        "turned": turned,
        "other": b"no xz",
        "empty": b"",
        "short": lzma.compress(contents[:-9]),
    }
    (tmp_path / "model" / PACKED).write_bytes(broken[damage])
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.xz: ") as caught:
        minisink.load(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_golden_vectors_are_made_again_as_they_were_recorded(packed, monkeypatch, name):
    """Integers to the bit, numbers to 1e-12 of the largest: BLAS kernels differ in the last bits."""
    recorded = golden.read(name)
    monkeypatch.setattr(golden, "FOLDER", packed / "minisink" / "conformance" / "vectors")
    with np.load(golden.FOLDER / f"{name}.npz") as file:
        assert {"1+4.q", "1+4.out", "1+4.scores"}.isdisjoint(file) and "1+4.losses" in file
    made = golden.read(name)
    assert made.keys() == recorded.keys()
    for each, array in recorded.items():
        assert (made[each].dtype, made[each].shape) == (array.dtype, array.shape)
        if array.dtype == np.float64:
            finite = np.isfinite(array)
            np.testing.assert_array_equal(finite, np.isfinite(made[each]))
            assert np.abs(made[each][finite] - array[finite]).max() <= 1e-12 * np.abs(array[finite]).max(), each
        else:
            np.testing.assert_array_equal(made[each], array)
