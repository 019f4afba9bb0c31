"""Dumps: what a cache in any language answered is judged as if the cache ran here, or one line says why not."""

import io
import os
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest
from caches import engine, fed
from safetensors.numpy import save_file

import minisink
from minisink import conformance
from minisink.conformance import golden
from minisink.conformance.run import spans
from minisink.wrong_turns import CHUNKS, WRONG_TURNS, Cache, positions, tokens

FILE = golden.read("llama")
OUT, LOSSES, INDEX = (FILE[f"1+4.{name}"] for name in ("out", "losses", "token_index"))


def npz(folder, name="llama", **arrays):
    np.savez(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


def safetensors(folder, name="llama", **arrays):
    whole = {each: np.ascontiguousarray(array) for each, array in arrays.items()}
    save_file(whole, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def dumped(step, traces, chunks=None, shows=()):
    """What an engine that is given the traces would write down."""
    arrays = {} if chunks is None else {"chunks": np.array(chunks)}
    for trace in traces:
        (T, L, _, _), state, size = trace.q.shape, None, f"{trace.n_sinks}+{trace.window}"
        sizes = {"n_sinks": trace.n_sinks, "window": trace.window, "theta": trace.theta}
        arrays |= {f"{size}.out": np.zeros_like(trace.out)}
        arrays |= {f"{size}.{name}": np.full((T, L, 99), -1) for name in shows}
        for span in spans(T, chunks or (1,)):
            at = span.start if chunks is None else span
            for i in range(L):
                given = (array[at, i].copy() for array in (trace.q, trace.k, trace.v))
                out, state, seen = step(state, *given, layer=i, **sizes)
                arrays[f"{size}.out"][at, i] = out
                for name in shows:
                    arrays[f"{size}.{name}"][span.stop - 1, i, : len(seen[name])] = seen[name]
    return arrays


# Right ones, whole or in part -----------------------------------------------------------------------


@pytest.mark.parametrize("name", conformance.NAMES)
def test_the_vectors_are_a_right_dump_of_themselves(name):
    """Outputs, slots, positions, scores and losses of every size."""
    verdict = conformance.check_dump(golden.FOLDER / f"{name}.npz")
    assert verdict and verdict.missing == () and len(verdict.report.traces) == 4
    assert verdict.losses == dict.fromkeys(("0+5", "1+4", "4+3", "2+1"), "")


@pytest.mark.parametrize("name", conformance.TEXTS)
def test_so_are_the_losses_of_trained_models(name):
    """Of every setting; nothing else is in the file."""
    verdict = conformance.check_dump(golden.FOLDER / f"{name}.safetensors")
    assert verdict and verdict.report is None and len(verdict.losses) == len(conformance.losses(name))


@pytest.mark.parametrize(("dtype", "off"), [("float32", 1e-6), ("float16", 1e-3)])
@pytest.mark.parametrize("write", [npz, safetensors])
def test_a_dump_may_be_narrower(write, dtype, off, tmp_path):
    """Whatever an engine works in; numbers of slots may be floats as well."""
    names = ("out", "token_index", "positions", "scores", "losses")
    path = write(tmp_path, **{f"1+4.{name}": FILE[f"1+4.{name}"].astype(dtype) for name in names})
    verdict = conformance.check_dump(path)
    assert verdict and 0 < verdict.report.worst < off and verdict.report.dtype == dtype
    wrong = FILE["1+4.token_index"].astype(dtype)
    wrong[9, 1] = 4
    verdict = conformance.check_dump(write(tmp_path, **{"1+4.out": OUT, "1+4.token_index": wrong}))
    assert not verdict and (verdict.report.first.token, verdict.report.first.what) == (9, "slots")


def test_what_is_not_there_is_said_and_the_rest_is_judged(tmp_path):
    """Of three sizes nothing, of the fourth the first ten outputs and five losses."""
    path = npz(tmp_path, **{"1+4.out": OUT[:10], "1+4.token_index": INDEX[:10], "1+4.losses": LOSSES[:5]})
    verdict = conformance.check_dump(path)
    others = [f"{size}.{kind}" for kind in ("out", "losses") for size in ("0+5", "4+3", "2+1")]
    assert verdict and set(verdict.missing) == {*others, "1+4.out from token 10 on", "1+4.losses from token 6 on"}
    assert str(verdict).startswith("right in 1 trace of 10 tokens, ") and "\nnot checked: 0+5.out, 1+4.out from" in str(
        verdict
    )
    wrong = OUT[:10].copy()
    wrong[9, 1] += 1
    assert conformance.check_dump(npz(tmp_path, **{"1+4.out": wrong})).report.first.token == 9
    assert "but nothing was evicted in 1 of them" in str(conformance.check_dump(npz(tmp_path, **{"1+4.out": OUT[:5]})))


def test_slots_may_differ_by_layer(tmp_path):
    """(T, L, S): the second layer's are compared with the second layer's."""
    index = np.stack((INDEX, INDEX[:, ::-1]), axis=1)  # the slots in another order
    assert conformance.check_dump(npz(tmp_path, **{"1+4.out": OUT, "1+4.token_index": index}))
    index[7, 1, 2] = 1
    first = conformance.check_dump(npz(tmp_path, **{"1+4.out": OUT, "1+4.token_index": index})).report.first
    assert (first.token, first.layer, first.what) == (7, 1, "slots")


# Wrong ones -----------------------------------------------------------------------------------------

SOME = [tokens.OneMore, positions.RingOrder, CHUNKS[0]]


@pytest.mark.sampled
@pytest.mark.parametrize("shows", [(), ("token_index",)], ids=["outputs", "slots"])
@pytest.mark.parametrize(
    "turn", [*SOME, *(pytest.param(turn, marks=pytest.mark.slow) for turn in WRONG_TURNS if turn not in SOME)]
)
def test_a_dump_is_judged_as_the_cache_itself(turn, shows, tmp_path):
    """Every wrong turn: the same first difference, in the same traces, by the same names."""
    chunks = (9, 1) if turn in CHUNKS else None
    right = fed(turn, "gqa", shows=bool(shows))
    arrays = dumped(engine(turn, 2, chunks=chunks), conformance.load("gqa"), chunks, shows)
    report = conformance.check_dump(npz(tmp_path, "gqa", **arrays)).report
    if right or right.first.what in ("memory", "positions"):  # which the dump does not hold
        assert report or (right.first and report.first.token >= right.first.token)
        return
    if right.first.again:  # a dump has one reading: the next trace shows what was left
        assert report.first.token == right.first.token and report.looks_like == right.looks_like
        return
    assert str(report.first) == str(right.first) and report.looks_like == right.looks_like
    failed, of_cache = ([str(trace) for trace in each.failed] for each in (report, right))
    assert failed == [each for each in of_cache if each in failed or not shows]  # shown positions are not in the dump


def test_a_wrong_loss_is_named(tmp_path):
    """Of tiny models and trained ones; a wrong output beside it as well."""
    wrong = LOSSES.copy()
    wrong[7] += 0.01
    verdict = conformance.check_dump(npz(tmp_path, **{"1+4.losses": wrong, "0+5.losses": FILE["0+5.losses"]}))
    assert not verdict and verdict.losses["0+5"] == ""
    said = f"llama, n_sinks=1, window=4: token 8: its loss is {wrong[7]:.6g}; expected {LOSSES[7]:.6g}"
    assert verdict.losses["1+4"] == said and "losses are right: 0+5" in str(verdict)
    assert conformance.check_dump(npz(tmp_path, **{"1+4.losses": LOSSES.astype("f4")}))
    golden_losses = conformance.losses("novels")[2]
    one_more = minisink.token_nll(minisink.load("novels"), golden_losses.ids, minisink.Streaming(1, 16))
    verdict = conformance.check_dump(npz(tmp_path, "novels", **{"1+15.losses": one_more}))
    assert re.fullmatch(
        r"novels, Streaming\(n_sinks=1, window=15.*\): token 17: its loss is .*", verdict.losses["1+15"]
    )


# Other policies, other names ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["half", "original", "first-dense", "blocks:2"])
def test_a_policy_makes_other_vectors(policy, tmp_path):
    """What is written under a policy is right under it, and is wrong without it."""
    conformance.write_vectors(tmp_path / policy, policy=policy)
    for name in conformance.NAMES:
        for ending in ("npz", "safetensors"):
            path = tmp_path / policy / f"{name}.{ending}"
            verdict = conformance.check_dump(path, policy=policy)
            assert verdict and len(verdict.losses) == (0 if (name, policy) == ("gpt2", "first-dense") else 4)
            assert (name, policy) == ("gpt2", "original") or not conformance.check_dump(path)


def test_a_cache_of_another_policy_is_right_under_it(tmp_path):
    """By name, and by the losses of a model that has read under it."""
    trace = conformance.check(Cache, conformance.load("llama")[1], policy="half").traces[0]
    losses = minisink.token_nll(conformance.model("llama"), trace.ids, trace.policy, readable=True)
    path = npz(tmp_path, **{"1+4.out": trace.out, "1+4.token_index": trace.token_index, "1+4.losses": losses})
    assert conformance.check_dump(path, policy="half")
    verdict = conformance.check_dump(path)
    assert not verdict.report and verdict.report.first.token == 5 and verdict.losses["1+4"]


def test_of_says_whose_it_is(tmp_path):
    path = npz(tmp_path, "my dump", **{"1+4.out": OUT})
    assert conformance.check_dump(path, of="llama")
    assert not conformance.check_dump(path, of="gpt2")


# What cannot be judged ------------------------------------------------------------------------------


def refused(path, said, **options):
    """ValueError in one line that names the file first."""
    with pytest.raises(ValueError, match=said) as caught:
        conformance.check_dump(path, **options)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "it holds neither out nor losses for any of 0[+]5, 1[+]4"),
        ({"ids": FILE["ids"], "3+3.out": OUT}, "it holds neither out"),
        ({"1+4.token_index": INDEX}, "1[+]4.out is missing, though 1[+]4.token_index is there"),
        ({"1+4.out": OUT, "1+4.positions": INDEX}, "1[+]4.token_index is missing, though 1[+]4.positions is there"),
        ({"1+4.out": OUT, "1+4.tokenindex": INDEX}, "1[+]4.tokenindex is unknown; known are out, token_index"),
        (
            {"1+4.out": OUT.reshape(24, 2, 128)},
            r"1\+4.out has shape \(24, 2, 128\); it must be \(T, L, H, D\) with T=24",
        ),
        ({"1+4.out": np.concatenate((OUT, OUT))}, r"1\+4.out has shape \(48, 2, 2, 64\)"),
        ({"1+4.out": OUT[:0]}, r"1\+4.out has shape \(0, 2, 2, 64\)"),
        ({"1+4.out": OUT[0, 0, 0]}, r"1\+4.out has shape \(64,\)"),
        (
            {"1+4.out": OUT, "1+4.token_index": INDEX.T},
            r"1\+4.token_index has shape \(5, 24\); .* \(T, S\) or \(T, L, S\)",
        ),
        ({"1+4.out": OUT, "1+4.token_index": INDEX[:9]}, r"1\+4.token_index has shape \(9, 5\)"),
        ({"1+4.losses": LOSSES[:0]}, r"1\+4.losses has shape \(0,\)"),
        ({"1+4.losses": np.append(LOSSES, 1)}, r"1\+4.losses has shape \(24,\); it must be \(N\) with N=23"),
        ({"1+4.out": OUT, "chunks": np.array([4, 0])}, "a chunk is 0"),
        ({"1+4.out": OUT, "chunks": np.array([])}, r"chunks is \[\]"),
    ],
)
@pytest.mark.parametrize("write", [npz, safetensors])
def test_an_array_that_does_not_fit_is_named(write, arrays, said, tmp_path):
    refused(write(tmp_path, **arrays), said)


def test_an_array_that_is_no_numbers_is_named(tmp_path):
    """Pickles are never opened."""
    for array, said in (
        (np.array([None, 1]), "allow_pickle=False"),
        (np.array("x"), "not an array"),
        (OUT + 1j, "not an array"),
    ):
        refused(npz(tmp_path, **{"1+4.out": array}), rf"not a sound .npz file \(1\+4.out \(.*{said}")
    header = b'{"1+4.out":{"dtype":"BF16","shape":[24,2,2,64],"data_offsets":[0,12288]}}'
    (tmp_path / "llama.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(12288))
    refused(tmp_path / "llama.safetensors", r"1\+4.out .*bfloat16")
    about = (
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(127)
        + b"\n"
    )
    with zipfile.ZipFile(tmp_path / "llama.npz", "w") as file:
        file.writestr("1+4.out.npy", about + bytes(100))
    refused(tmp_path / "llama.npz", r"1\+4.out \(Unable to allocate")


class Mine:
    """What a pickle would make."""

    def __reduce__(self):
        return os.mkdir, ("opened",)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_damaged_file_is_named(ending, tmp_path, monkeypatch):
    """Empty, cut anywhere, another format, a header of 2 GB, a pickle, a folder, nothing; no byte turned passes."""
    monkeypatch.chdir(tmp_path)
    path, buffer = tmp_path / f"llama.{ending}", io.BytesIO()
    whole = {"npz": npz, "safetensors": safetensors}[ending](tmp_path, **{"1+4.out": OUT}).read_bytes()
    cut = [whole[:n] for n in (1, 8, 100, 5000, len(whole) - 1)]
    np.save(buffer, OUT)
    claims = [struct.pack("<Q", 2 << 30) + b"{}", b"\xff" * 8 + b"{}"]
    for data in (b"", *cut, b"text", buffer.getvalue(), pickle.dumps(Mine()), *claims):
        path.write_bytes(data)
        refused(path, f"not a sound .{ending} file")
    path.unlink()
    refused(path, "No such file")
    path.mkdir()
    refused(path, "a folder; a file is needed")
    assert not os.path.exists("opened")


def test_nothing_known_is_named(tmp_path):
    """A model, a policy, a trained model under a policy, a tolerance."""
    refused(
        npz(tmp_path, "alpaca", **{"1+4.out": OUT}),
        "no vectors of 'alpaca'; --of takes llama, gqa, gpt2, nov",
    )
    path = npz(tmp_path, **{"1+4.out": OUT})
    refused(path, "'novels' under a policy; --of takes llama, gqa, gpt2$", of="novels", policy="half")
    refused(path, "tolerance is -1", tolerance=-1)
    refused(path, "policy is 'thirds'; known are streaming, blocks:16", policy="thirds")
