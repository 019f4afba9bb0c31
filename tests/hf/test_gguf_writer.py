"""A model written as GGUF is read back, words and all, and llama.cpp computes the same where it is installed."""

import warnings
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import tiny

import minisink
from minisink import conformance, llama, ops
from minisink.families import falcon, gpt_neox, mpt
from minisink.hf import gguf_model
from minisink.hf.shipped import sample_text

pytest.importorskip("gguf", reason="needs the test extra: gguf")


def write(path, model):
    gguf_model.write(path, model.config, model.arrays(), model.tokenizer)
    return path


@pytest.mark.parametrize("name", ["novels", "novels-vanilla", "novels-gpt2"])
def test_a_model_that_ships_comes_back_with_its_tokenizer(name, tmp_path):
    """The same ids, with ``<s>`` first or not, and the same logits to the bit."""
    model = minisink.load(name)
    again = minisink.load(write(tmp_path / "model.gguf", model))
    text = sample_text().read_text(encoding="utf-8")[:2000] + " <s> it's\t 12é"
    ids = model.encode(text)
    np.testing.assert_array_equal(again.encode(text), ids)
    assert again.config == model.config and again.decode(ids) == model.decode(ids)
    np.testing.assert_array_equal(again.forward(ids[:40]), model.forward(ids[:40]))


def test_a_tokenizer_of_another_kind_is_left_out(tmp_path):
    from tokenizers import normalizers

    model = minisink.load("novels")
    model.tokenizer.normalizer = normalizers.Lowercase()
    assert minisink.load(write(tmp_path / "model.gguf", model)).tokenizer is None


def test_a_mistral_is_a_llama_there(tmp_path):
    model = tiny.public(tiny.make(llama, dtype=np.float32, model_type="mistral"))
    again = minisink.load(write(tmp_path / "model.gguf", model))
    assert again.config == replace(model.config, model_type="llama")
    np.testing.assert_array_equal(again.forward(tiny.ids(9)), model.forward(tiny.ids(9)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["novels", "novels-vanilla"])
def test_llama_cpp_has_the_same_losses(name, tmp_path):
    """Dense, over the 256 tokens that the models were trained on, in float32; and it cuts the text alike."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    model, recorded = minisink.load(name), conformance.losses(name)[0]
    path, ids = write(tmp_path / "model.gguf", model), recorded.ids[:257].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, logits_all=True, type_k=0, type_v=0, verbose=False)
        text = sample_text().read_text(encoding="utf-8").encode()
        assert engine.tokenize(text, add_bos=model.config.bos is not None)[:257] == ids
        engine.eval(ids[:-1])
        logits = np.array(engine.scores[:256], np.float64)
        engine.close()
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(256), ids[1:]]
    assert np.abs(losses - recorded.losses[:256]).max() < 1e-5 * recorded.losses.max()


FAMILIES = {
    "a quarter rotates": (gpt_neox, {"rotary_dim": 4}),
    "one half after the other": (gpt_neox, {"rotary_dim": 16, "parallel": False}),
    "tied": (gpt_neox, {"rotary_dim": 8, "tied": True}),
    "one key, one norm": (falcon, {"n_kv_heads": 1}),
    "some keys, two norms": (falcon, {"n_kv_heads": 2, "n_norms": 2}),
    "some keys, one norm, untied": (falcon, {"n_kv_heads": 2, "tied": False}),
    "slopes": (mpt, {}),
    "other slopes, of six heads": (mpt, {"n_heads": 6, "d_model": 96, "alibi_bias_max": 16.0}),
    "normed queries and keys": (llama, {"n_kv_heads": 2, "head_dim": 32, "qk_norm": True, "model_type": "qwen3"}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "changes"), FAMILIES.values(), ids=FAMILIES)
def test_llama_cpp_has_the_logits_of_every_family(arch, changes, tmp_path):
    """It takes GPT-2's gelu for all of them, out of a table of halves: 2e-4 of the largest logit with that gelu here.

    With the exact one, which the models were trained with, 1e-3; and 1e-5 for Qwen3, which has no gelu.
    """
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")
    sizes = {"d_model": 64, "n_heads": 4, "d_ff": 96, "vocab_size": 97, "max_positions": 64} | changes
    model = tiny.public(tiny.make(arch, dtype=np.float32, **sizes))
    path, ids = write(tmp_path / "model.gguf", model), np.random.default_rng(1).integers(0, 97, 40)
    assert minisink.load(path).config == model.config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = llama_cpp.Llama(str(path), n_ctx=64, n_threads=1, logits_all=True, type_k=0, type_v=0, verbose=False)
        engine.eval(ids.tolist())
        logits = np.array(engine.scores[:40])
        engine.close()
    bounds = {True: 1e-5 if arch is llama else 1e-3, False: 1e-5 if arch is llama else 2e-4}
    for exact, bound in bounds.items():
        gelus = {} if exact else {"gelu": halves, "gelu_new": halves}
        with (
            mock.patch.dict(ops.ACTIVATIONS, gelus),
            mock.patch.object(mpt, "gelu_erf", gelus.get("gelu", ops.gelu_erf)),
        ):
            assert abs(model.forward(ids) - logits).max() < bound * abs(logits).max()


def halves(x):
    """llama.cpp's gelu: a table of halves from -10 to 10."""
    table = ops.gelu(x.astype(np.float16).astype(np.float32)).astype(np.float16).astype(np.float32)
    return np.where(abs(x) < 10, table, np.maximum(x, 0))
