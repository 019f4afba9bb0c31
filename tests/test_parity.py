"""minisink against Hugging Face transformers and the scheme of StreamingLLM's authors, both run by PyTorch.

Needs the `parity` extra; skipped without it. Models are drawn at random, in every variant that minisink promises
to load.
"""

import copy
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny
import tokenizers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from profiles import examples
from tokenizers import pre_tokenizers, processors

import minisink
from minisink import gpt2, llama
from minisink.hf import package
from minisink.hf.shipped import sample_text, shipped, shipped_names

torch = pytest.importorskip("torch", reason="needs the parity extra: torch")
transformers = pytest.importorskip("transformers", reason="needs the parity extra: transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from parity import authors_nll, rotate, transformers_nll

transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)  # the models are tiny
# deprecations inside torch and transformers are not ours to mend
pytestmark = [pytest.mark.filterwarnings(f"ignore:::{package}") for package in ("torch", "transformers")]
drawn = examples(40, least=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])

N_TOKENS = 23

# Models drawn at random ---------------------------------------------------------------------------

SCALINGS = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.5},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
]


KINDS = ["Llama", "Qwen2", "Qwen3", "Mistral", "GPT2", "GPTNeoX", "Mpt", "Falcon"]


def but_for(*fast):
    """Every kind, all but a few only with ``--full``."""
    return [kind if kind in fast else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


def models(kind):
    """(kind, configuration, how the folder is written)."""
    others = {"GPT2": gpt2s, "GPTNeoX": gpt_neoxes, "Mpt": mpts, "Falcon": falcons}
    return others[kind]() if kind in others else llamas(kind)


def head_dims(draw, n_heads, step=1):
    """The width of a head, such that the model has 8 channels or more: a LayerNorm of two magnifies rounding."""
    least = -(-8 // (n_heads * step))
    return step * draw(st.integers(least, least + 3))


@st.composite
def llamas(draw, kind):
    """A Llama, or one of the three that are Llama in disguise."""
    n_kv_heads = draw(st.sampled_from([2, 1, 3]))
    n_heads = n_kv_heads * draw(st.sampled_from([2, 1, 4]))
    d_model = n_heads * 2 * draw(st.integers(1, 4))
    config = {
        "vocab_size": 37,
        "hidden_size": d_model,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "intermediate_size": draw(st.integers(3, 29)),
        "max_position_embeddings": 64,
        "rms_norm_eps": draw(st.sampled_from([1e-5, 1e-6, 1e-2])),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_parameters": {
            **draw(st.sampled_from(SCALINGS)),
            "rope_theta": draw(st.sampled_from([10000.0, 30.0, 500000.0])),
        },
    }
    if kind == "Qwen3" or draw(st.booleans()):
        config["head_dim"] = 2 * draw(st.integers(1, 6))
    if kind in ("Llama", "Qwen3"):
        config["attention_bias"] = draw(st.booleans())
    if kind == "Llama":
        config["mlp_bias"] = draw(st.booleans())
    if kind == "Mistral":
        config["sliding_window"] = None
    return kind, config, draw(folders(spellings=["rope_parameters", "rope_scaling", "type"]))


@st.composite
def gpt2s(draw):
    """A GPT-2."""
    n_heads = draw(st.integers(1, 4))
    config = {
        "vocab_size": 37,
        "n_embd": n_heads * head_dims(draw, n_heads),
        "n_layer": draw(st.integers(1, 3)),
        "n_head": n_heads,
        "n_inner": draw(st.sampled_from([None, 27])),
        "n_positions": 31,
        "layer_norm_epsilon": draw(st.sampled_from([1e-5, 1e-2])),
        "tie_word_embeddings": draw(st.booleans()),
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return "GPT2", config, draw(folders())


@st.composite
def gpt_neoxes(draw):
    """A GPT-NeoX: any even part of a head rotates."""
    n_heads = draw(st.integers(1, 4))
    head_dim = head_dims(draw, n_heads)
    rotary_dim = 2 * draw(st.integers(1, head_dim // 2))
    config = {
        "vocab_size": 37,
        "hidden_size": n_heads * head_dim,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": n_heads,
        "intermediate_size": draw(st.integers(3, 29)),
        "max_position_embeddings": 64,
        "layer_norm_eps": draw(st.sampled_from([1e-5, 1e-2])),
        "tie_word_embeddings": draw(st.booleans()),
        "use_parallel_residual": draw(st.booleans()),
        "attention_bias": draw(st.booleans()),
        "hidden_act": draw(st.sampled_from(["gelu", "gelu_new"])),
        "rope_parameters": {
            **draw(st.sampled_from(SCALINGS)),
            "rope_theta": draw(st.sampled_from([10000.0, 30.0])),
            "partial_rotary_factor": rotary_dim / head_dim,
        },
    }
    return "GPTNeoX", config, draw(folders(spellings=["rope_parameters", "rope_scaling", "type"]))


@st.composite
def mpts(draw):
    """An MPT: the slopes of 3 heads are not those of 2 or 4, and its MLP is 4 widths whatever is said."""
    n_heads = draw(st.integers(1, 7))
    config = {
        "vocab_size": 37,
        "d_model": n_heads * head_dims(draw, n_heads),
        "n_layers": draw(st.integers(1, 3)),
        "n_heads": n_heads,
        "max_seq_len": 64,
        "layer_norm_epsilon": draw(st.sampled_from([1e-5, 1e-2])),
        "tie_word_embeddings": draw(st.booleans()),
        "no_bias": draw(st.booleans()),
        "learned_pos_emb": draw(st.booleans()),
        "attn_config": draw(st.sampled_from([None, {"alibi": True, "clip_qkv": 0.0}, {"attn_impl": "triton"}])),
    }
    return "Mpt", config, draw(folders())


@st.composite
def falcons(draw):
    """A Falcon of any of its three forms."""
    n_kv_heads, groups, new = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.booleans())
    n_heads = n_kv_heads * groups
    config = {
        "vocab_size": 37,
        "hidden_size": n_heads * head_dims(draw, n_heads, 2),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": n_heads,
        "ffn_hidden_size": draw(st.sampled_from([None, 27])),
        "max_position_embeddings": 64,
        "layer_norm_epsilon": draw(st.sampled_from([1e-5, 1e-2])),
        "tie_word_embeddings": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "activation": draw(st.sampled_from(["gelu", "gelu_new"])),
        "new_decoder_architecture": new,
        "rope_parameters": {**draw(st.sampled_from(SCALINGS)), "rope_theta": draw(st.sampled_from([10000.0, 30.0]))},
    }
    if new:
        config |= {"num_kv_heads": n_kv_heads, "num_ln_in_parallel_attn": draw(st.sampled_from([None, 1, 2]))}
    else:
        config |= {"multi_query": draw(st.booleans()), "parallel_attn": draw(st.booleans())}
    return "Falcon", config, draw(folders(spellings=["rope_parameters", "rope_scaling", "type"]))


@st.composite
def folders(draw, spellings=("",)):
    """How a folder is written; everything here leaves the model what it is."""
    return {
        "seed": draw(st.integers(0, 2**16)),
        "dtype": draw(st.sampled_from(["float32", "float16", "bfloat16"])),
        "sharded": draw(st.booleans()),
        "without_prefix": draw(st.booleans()),  # what the class without a head saves; only where the head is tied
        "harmless_extras": draw(st.booleans()),
        "rope_spelling": draw(st.sampled_from(list(spellings))),
    }


def build(kind, config, how):
    """The transformers model; every parameter random, the biases and norms too, and exact in the dtype of the file."""
    torch.manual_seed(how["seed"])
    model = getattr(transformers, f"{kind}ForCausalLM" if kind != "GPT2" else "GPT2LMHeadModel")(
        getattr(transformers, f"{kind}Config")(**config)
    )
    dtype = getattr(torch, how["dtype"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = name.endswith("weight") and ("norm" in name or "ln_" in name)
            parameter.normal_(0.0, 0.3).add_(1.0 if is_norm else 0.0)
            parameter.copy_(parameter.to(dtype))
    return model.eval()


@contextmanager
def written(model, how):
    """A folder with the model in it, for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tied = model.config.tie_word_embeddings
        saved = copy.deepcopy(model.base_model if how["without_prefix"] and tied else model)
        saved.to(getattr(torch, how["dtype"]))  # a copy: this narrows the rotary frequencies as well
        saved.save_pretrained(folder, max_shard_size="2KB" if how["sharded"] else "1GB")
        if how["harmless_extras"] and not how["sharded"]:
            _add_extras(folder / "model.safetensors", model)
        _respell_rope(folder / "config.json", how["rope_spelling"])
        yield folder


MASK, FREQS = torch.ones(1, 1, 31, 31, dtype=torch.uint8).tril(), torch.ones(3)
MASKS = {"bias": MASK, "masked_bias": torch.tensor(-1e4)}
EXTRAS = {  # what the names of an architecture's tensors begin with, and some beside them
    "gpt2": ("transformer.", {f"h.0.attn.{name}": mask for name, mask in MASKS.items()}),
    "gpt_neox": (
        "gpt_neox.",
        {f"layers.0.attention.{name}": t for name, t in (MASKS | {"rotary_emb.inv_freq": FREQS}).items()},
    ),
    "mpt": ("transformer.", {}),
    "falcon": ("transformer.", {"h.0.self_attention.rotary_emb.inv_freq": FREQS}),
}


def _add_extras(path, model):
    """What older files carry: causal masks, rotary frequencies, a stored copy of a tied head."""
    tensors = safetensors_torch.load_file(path)
    embedding = model.get_input_embeddings().weight.detach()
    prefix, names = EXTRAS.get(model.config.model_type, ("model.", {"layers.0.self_attn.rotary_emb.inv_freq": FREQS}))
    prefix = prefix if any(name.startswith(prefix) for name in tensors) else ""
    tensors |= {prefix + name: tensor.clone() for name, tensor in names.items()}
    if model.config.tie_word_embeddings:
        head = "embed_out.weight" if model.config.model_type == "gpt_neox" else "lm_head.weight"
        tensors[head] = embedding.to(next(iter(tensors.values())).dtype).clone()
    safetensors_torch.save_file(tensors, path, metadata={"format": "pt"})


def _respell_rope(path, spelling):
    """Write the rotary settings as transformers 4 did, with either name of the rule."""
    if spelling not in ("rope_scaling", "type"):
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    rope = config.pop("rope_parameters")
    neox = config["model_type"] == "gpt_neox"
    config["rotary_emb_base" if neox else "rope_theta"] = rope.pop("rope_theta")
    if neox:
        config["rotary_pct"] = rope.pop("partial_rotary_factor")
    rule = rope.pop("rope_type")
    key = "type" if spelling == "type" else "rope_type"
    config["rope_scaling"] = None if rule == "default" else {key: rule, **rope}
    path.write_text(json.dumps(config), encoding="utf-8")


def some_ids(seed):
    return np.random.default_rng(seed).integers(0, 37, N_TOKENS)


def logits_of(model, ids, past=None):
    """(T, V) in float64."""
    with torch.no_grad():
        return model.double()(torch.tensor(ids)[None], past_key_values=past).logits[0].numpy()


def assert_close(ours, theirs):
    """To 2e-5 of the largest logit."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@drawn
@given(st.data())
def test_logits_of_a_folder_that_transformers_wrote(kind, data):
    case = data.draw(models(kind))
    model, how = build(*case), case[-1]
    ids = some_ids(how["seed"])
    with written(model, how) as folder:
        ours = minisink.load(folder).forward(ids)
    assert_close(ours, logits_of(model, ids))


@pytest.mark.sampled
@pytest.mark.parametrize("kind", KINDS)
@drawn
@given(st.data())
def test_transformers_loads_what_minisink_saved(kind, data):
    case = data.draw(models(kind))
    model, how = build(*case), case[-1]
    ids = some_ids(how["seed"])
    with written(model, how) as folder, tempfile.TemporaryDirectory() as again:
        minisink.load(folder).save(again)
        loaded, info = type(model).from_pretrained(again, output_loading_info=True, dtype=torch.float32)
        twice = minisink.load(again).forward(ids)
        assert np.array_equal(twice, minisink.load(folder).forward(ids))
    assert {fault: list(names) for fault, names in info.items() if names} == {}
    # a Falcon with one key has two spellings, and transformers a path for each
    np.testing.assert_allclose(logits_of(loaded, ids), logits_of(model, ids), rtol=0, atol=1e-12)


# Folders by other hands ---------------------------------------------------------------------------

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 300, "hidden_size": 16,
    "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2,
    "max_position_embeddings": 64, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MISTRAL = LLAMA | {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
QWEN2 = LLAMA | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
QWEN3 = LLAMA | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 8}
NEOX = LLAMA | {"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "rotary_pct": 0.25}
FALCON = LLAMA | {"model_type": "falcon", "architectures": ["FalconForCausalLM"]}
MPT = {
    "model_type": "mpt", "architectures": ["MptForCausalLM"], "vocab_size": 300, "d_model": 16, "n_heads": 2,
    "n_layers": 2, "max_seq_len": 64, "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 300, "n_embd": 16, "n_head": 2,
    "n_layer": 2, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def folder_of(folder, raw):
    """A folder whose config.json is `raw` to the letter, with the weights transformers makes for it."""
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.5).add_(1.0 if "norm" in name or "ln_" in name else 0.0)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    return folder


def their_model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def assert_same_logits(folder, n_tokens=40):
    ids = np.random.default_rng(0).integers(0, 300, n_tokens)
    assert_close(minisink.load(folder).forward(ids), logits_of(their_model(folder), ids))


@pytest.mark.parametrize("raw", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_a_stored_output_matrix_counts(tmp_path, raw):
    """Where the config says that it is the embedding; and what is saved has it for both."""
    folder_of(tmp_path, raw)
    tensors = safetensors_torch.load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(300, 16)
    safetensors_torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same_logits(tmp_path)
    model = minisink.load(tmp_path)
    np.testing.assert_array_equal(model.weights.head.T, tensors["lm_head.weight"].numpy())
    model.save(tmp_path / "again")
    assert_same_logits(tmp_path / "again")


BUFFERS = ["layers.0.self_attn.rotary_emb.inv_freq", "layers.1.self_attn.rotary_emb.cos_cached", "position_ids"]
BUFFERS += ["layers.1.self_attn.rotary_emb.sin_cached", "rotary_emb.inv_freq", "rotary_emb.original_inv_freq"]


def test_tables_that_other_tools_write_change_nothing(tmp_path):
    folder_of(tmp_path, LLAMA)
    tensors = safetensors_torch.load_file(tmp_path / "model.safetensors")
    tensors |= {f"model.{name}": torch.ones(1, 4) for name in BUFFERS}
    safetensors_torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same_logits(tmp_path)
    assert len(minisink.load(tmp_path).ignored) == len(BUFFERS)


RULES = [
    {},
    {"factor": 2.0},
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 2.5},
    {"type": "linear", "factor": 0.5},
    {"type": "linear", "rope_type": "default", "factor": 2.0},
    {"type": "default", "rope_type": "linear", "factor": 3.0, "attention_factor": 0.5},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": 32},
]  # fmt: skip
THETAS = st.sampled_from([500.0, 30, 10000.0])


@st.composite
def spellings(draw):
    """Keys of a config.json, most of them about positions: absent, null, or several that contradict each other."""
    raw = {}
    for key in ("rope_scaling", "rope_parameters"):
        if draw(st.booleans()):
            theta = draw(st.just({}) | st.fixed_dictionaries({"rope_theta": THETAS}))
            raw[key] = draw(st.none() | st.sampled_from(RULES).map(lambda rule, theta=theta: rule | theta))
    about = {
        "rope_theta": THETAS,
        "original_max_position_embeddings": st.sampled_from([8, 48]),
        "max_position_embeddings": st.sampled_from([64, 100]),
        "partial_rotary_factor": st.sampled_from([1.0, None]),
        "head_dim": st.sampled_from([8, None]),
        "layer_types": st.sampled_from([["full_attention"] * 2, None]),
        "rms_norm_eps": st.sampled_from([1e-5, 0.1]),
        "hidden_act": st.sampled_from(["silu", "swish"]),
        "logit_scale": st.sampled_from([0.5, None]),
        "rope_interleaved": st.booleans(),
    }
    return raw | draw(st.fixed_dictionaries({}, optional=about))


@pytest.fixture(scope="module")
def by_type(tmp_path_factory):
    """A folder of each type; its config.json is to be written."""
    raws = {"llama": LLAMA, "mistral": MISTRAL | {"sliding_window": None}, "qwen2": QWEN2, "gpt2": GPT2}
    raws |= {"qwen3": QWEN3, "gpt_neox": NEOX, "mpt": MPT, "falcon": FALCON}
    return {name: (folder_of(tmp_path_factory.mktemp(name), raw), raw) for name, raw in raws.items()}


@pytest.mark.filterwarnings("ignore:.*not use:UserWarning")
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2"])
@examples(100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=spellings())
@example(changes={"rope_scaling": RULES[3], "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}})
@example(changes={"rope_scaling": RULES[8], "original_max_position_embeddings": 8})
@example(changes={"rope_scaling": RULES[7]})
def test_spellings_side_by_side(by_type, name, changes):
    """Whatever stands in config.json, to the logits of transformers, which reads the same file."""
    folder, raw = by_type[name]
    cannot = {"mistral": "layer_types", "qwen2": "head_dim"}.get(name)  # what transformers fails over
    changes = {key: value for key, value in changes.items() if key != cannot}
    (folder / "config.json").write_text(json.dumps(raw | changes), encoding="utf-8")
    assert_same_logits(folder, 23)


SLIDING = {"use_sliding_window": True, "sliding_window": 4}
SAME = {
    "Mistral without a window": MISTRAL | {"sliding_window": None},
    "Qwen2 unless it is said": QWEN2 | {"sliding_window": 4},
    "Qwen2 from layer 28 on": QWEN2 | SLIDING,
    "Qwen2 from layer 2 on": QWEN2 | SLIDING | {"max_window_layers": 2},
    "Qwen2 by name": QWEN2 | SLIDING | {"layer_types": ["full_attention"] * 2, "max_window_layers": 0},
    "Qwen2 with null": QWEN2 | SLIDING | {"sliding_window": None, "max_window_layers": 0},
    "Mistral has 8 key/value heads": {k: v for k, v in MISTRAL.items() if k != "num_key_value_heads"}
    | {"num_attention_heads": 8, "sliding_window": None},
    "GPT-2 by other names": {
        "model_type": "gpt2", "vocab_size": 300, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2,
        "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
    },
    **{f"GPT-2 with {name}": GPT2 | {"activation_function": name} for name in ("gelu_fast", "gelu_accurate")},
}  # fmt: skip


@pytest.mark.parametrize("raw", SAME.values(), ids=SAME)
def test_what_a_config_leaves_out_or_says_otherwise(tmp_path, raw):
    assert_same_logits(folder_of(tmp_path, raw))


@pytest.mark.parametrize("raw", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_a_window_where_there_is_none_is_warned_of(tmp_path, raw):
    """A forward pass of transformers sees every token, and so does ours; its own cache drops keys."""
    folder_of(tmp_path, raw | {"sliding_window": 4})
    with pytest.warns(UserWarning, match="sliding_window is 4: every token is still seen"):
        ours = minisink.load(tmp_path)
    assert_close(ours.forward(some_ids(0)), logits_of(their_model(tmp_path), some_ids(0)))


REACHED = {
    "Mistral": MISTRAL | {"sliding_window": 4},
    "Mistral by default": MISTRAL | {"max_position_embeddings": 32768},
    "Mistral by two defaults": {k: v for k, v in MISTRAL.items() if k != "max_position_embeddings"},
    "Qwen2": QWEN2 | SLIDING | {"max_window_layers": 1},
    "Qwen2 by name": QWEN2 | SLIDING | {"layer_types": ["full_attention", "sliding_attention"]},
}


@pytest.mark.parametrize("raw", REACHED.values(), ids=REACHED)
def test_a_window_inside_the_model_is_refused(tmp_path, raw):
    """Where transformers masks, minisink does not: no model, instead of other logits."""
    folder_of(tmp_path, raw)
    config = their_model(tmp_path).config
    assert config.sliding_window in (4, 4096) and config.sliding_window < config.max_position_embeddings
    with pytest.raises(minisink.CheckpointError, match="sliding_window is"):
        minisink.load(tmp_path)


def test_default_ids_beyond_a_small_vocabulary(tmp_path):
    """A GPT-2 that says nothing has id 50256 for both in transformers; written out, minisink warns and loads."""
    folder_of(tmp_path, GPT2 | {"bos_token_id": 50256, "eos_token_id": 50256})
    with pytest.warns(UserWarning, match="_token_id 50256 is beyond the vocabulary of 300"):
        ours = minisink.load(tmp_path)
    ids = some_ids(0)
    assert_close(ours.forward(ids), logits_of(their_model(tmp_path), ids))


def test_the_ends_of_text_of_both_files(tmp_path):
    """Greedy text of both stops at the token that generation_config.json alone names."""
    folder_of(tmp_path, LLAMA)
    model, prompt = minisink.load(tmp_path), [1, 70, 80, 90]
    free = list(minisink.generate(model, prompt, max_new_tokens=60, method=minisink.Dense()))
    stop = next(token for i, token in enumerate(free) if i >= 5 and token not in free[:i])
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, stop]}), encoding="utf-8")
    options = {"max_new_tokens": 60, "do_sample": False, "pad_token_id": 0}
    ids = torch.tensor(prompt)[None]
    theirs = their_model(tmp_path).generate(ids, attention_mask=torch.ones_like(ids), **options)[0, 4:].tolist()
    model = minisink.load(tmp_path)
    options = {"max_new_tokens": 60, "method": minisink.Dense(), "stop_tokens": model.config.eos}
    ours = list(minisink.generate(model, prompt, **options))
    assert ours == theirs[: len(ours)] and len(theirs) - len(ours) <= 1 and len(theirs) < 60


def byte_tokenizer(specials, post_processor=None):
    """A tokenizer of special tokens, from id 0, and the 256 bytes."""
    words = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.add_special_tokens(list(specials))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = post_processor
    return tokenizer


def template(token, i):
    return processors.TemplateProcessing(single=[token, "$A"], special_tokens=[(token, i)])


BYTES = processors.ByteLevel(trim_offsets=False)
END = "<|endoftext|>"
L2, L3 = ["<unk>", "<s>", "</s>"], ["<|begin_of_text|>", "<|end_of_text|>"]
REAL = {
    # what a folder of each kind looks like: config.json, the tokenizer, tokenizer_config.json
    "Llama 2": (LLAMA, L2, template("<s>", 1), {"bos_token": "<s>", "add_bos_token": True}),
    "Llama 2, an older class": (LLAMA, L2, template("<s>", 1), {"tokenizer_class": "LlamaTokenizer"}),
    "Llama 2, said otherwise": (LLAMA, L2, template("<s>", 1), {"bos_token": "<s>", "add_bos_token": False}),
    "no template, said otherwise": (LLAMA, L2, None, {"bos_token": "<s>", "add_bos_token": True}),
    "Llama 3": (
        LLAMA | {"bos_token_id": 0, "eos_token_id": 1},
        L3, processors.Sequence([BYTES, template("<|begin_of_text|>", 0)]), {"bos_token": "<|begin_of_text|>"},
    ),
    "GPT-2": (GPT2, [END], BYTES, {"bos_token": END, "tokenizer_class": "GPT2Tokenizer"}),
    "Qwen2": (QWEN2 | {"bos_token_id": 0}, [END], BYTES, {"bos_token": None, "tokenizer_class": "Qwen2Tokenizer"}),
    "SmolLM2": (
        LLAMA, [END, "<|im_start|>", "<|im_end|>"], None,
        {"bos_token": "<|im_start|>", "tokenizer_class": "GPT2Tokenizer"},
    ),
    "Qwen3": (QWEN3 | {"bos_token_id": 0}, [END], BYTES, {"bos_token": None, "tokenizer_class": "Qwen2Tokenizer"}),
    "Pythia": (NEOX, [END, "<|padding|>"], BYTES, {"bos_token": END, "tokenizer_class": "GPTNeoXTokenizer"}),
    "MPT": (MPT, [END, "<|padding|>"], BYTES, {"bos_token": END, "tokenizer_class": "GPTNeoXTokenizer"}),
    "Falcon": (FALCON, [END], BYTES, {"eos_token": END}),
    "none in the config": (LLAMA | {"bos_token_id": None}, L2, template("<s>", 1), {"bos_token": "<s>"}),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "specials", "post_processor", "settings"), REAL.values(), ids=REAL)
def test_a_text_begins_as_in_transformers(tmp_path, raw, specials, post_processor, settings):
    """The ids of a text, and of one that is saved and loaded by both again."""
    folder_of(tmp_path, raw)
    byte_tokenizer(specials, post_processor).save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | settings
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    model = minisink.load(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)("dark").input_ids
    assert model.encode("dark").tolist() == theirs
    model.save(tmp_path / "again")
    assert minisink.load(tmp_path / "again").encode("dark").tolist() == theirs
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "again")("dark").input_ids == theirs


def puts(before, after=()):
    """A template of special tokens, by their ids in `L2`, around a text."""
    names = [L2[i] for i in (*before, *after)]
    single = [*names[: len(before)], "$A", *names[len(before) :]]
    return processors.TemplateProcessing(single=single, special_tokens=[(name, L2.index(name)) for name in names])


POSTS = [
    None,
    BYTES,
    puts([]),
    puts([1]),
    puts([2]),
    puts([1], [2]),
    puts([], [2]),
    processors.Sequence([BYTES, puts([1])]),
]
CLASSES = [f"{name}Tokenizer{end}" for name in ("Llama", "GPT2", "Qwen2") for end in ("", "Fast")]
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "tokenizer_class": st.sampled_from(["PreTrainedTokenizerFast", *CLASSES]),
        "bos_token": st.sampled_from(["<s>", "</s>", None]),
        "add_bos_token": st.booleans(),
        "add_eos_token": st.booleans(),
    },
)


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("qwen3", "falcon")]


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "gpt2", *OTHERS])
@examples(50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(POSTS), SETTINGS, st.sampled_from([0, 1, None]))
def test_whatever_begins_a_text(by_type, name, post_processor, settings, bos):
    """Added by the post-processor or not at all, whatever the other files say; what ends it is not ours to add."""
    folder, raw = by_type[name]
    (folder / "config.json").write_text(json.dumps(raw | {"bos_token_id": bos}), encoding="utf-8")
    byte_tokenizer(L2, post_processor).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)("dark").input_ids
    ours = minisink.load(folder).encode("dark").tolist()
    assert ours == theirs[: len(ours)] and theirs[len(ours) :] in ([], [2])


MARK = "<|mark|>"
SETTINGS_FILE, MAP_FILE = "tokenizer_config.json", "special_tokens_map.json"
LISTS = {
    # which files name a word, with the id it has or would have
    "nowhere": lambda i: {},
    "with its id": lambda i: {SETTINGS_FILE: {"added_tokens_decoder": {i: {"content": MARK, "special": True}}}},
    "with its id, a word of a user": lambda i: {SETTINGS_FILE: {"added_tokens_decoder": {i: {"content": MARK}}}},
    "with its id, and an end": lambda i: {
        SETTINGS_FILE: {"added_tokens_decoder": {i: {"content": MARK, "lstrip": True}}, "eos_token": MARK}
    },
    "additional": lambda i: {SETTINGS_FILE: {"additional_special_tokens": [MARK]}},
    "extra": lambda i: {SETTINGS_FILE: {"extra_special_tokens": [MARK]}},
    "by a name": lambda i: {SETTINGS_FILE: {"extra_special_tokens": {"mark_token": MARK}}},
    "an end": lambda i: {SETTINGS_FILE: {"eos_token": MARK}},
    "an end, in the map": lambda i: {SETTINGS_FILE: {}, MAP_FILE: {"eos_token": MARK}},
    "in the map": lambda i: {SETTINGS_FILE: {}, MAP_FILE: {"additional_special_tokens": [MARK]}},
    "added": lambda i: {SETTINGS_FILE: {}, "added_tokens.json": {MARK: i}},
    "added, special": lambda i: {
        SETTINGS_FILE: {"additional_special_tokens": [MARK]}, "added_tokens.json": {MARK: i}
    },
}  # fmt: skip


@examples(100, least=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(LISTS)), st.sampled_from(["not", "a word", "added", "special"]), st.booleans())
@example("additional", "not", True)
@example("with its id", "a word", True)
@example("an end", "added", True)
@example("with its id, and an end", "not", True)
@example("additional", "not", False)
def test_words_that_other_files_list_are_those_of_transformers(by_type, listed, there, room):
    """Wherever it is named: as a marker, and as what a user types; but for words that there is no embedding for."""
    folder, raw = by_type["llama"]
    fill = [f"<{i}>" for i in range(raw["vocab_size"] - 259)] if not room else []
    tokenizer = byte_tokenizer([*L2, *fill, *([MARK] if there == "special" and room else [])])
    if there == "a word" and room:
        about = json.loads(tokenizer.to_str())
        about["model"]["vocab"][MARK] = tokenizer.get_vocab_size()
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(about))
    if there == "added" and room:
        tokenizer.add_tokens([MARK])
    files = LISTS[listed](tokenizer.token_to_id(MARK) or tokenizer.get_vocab_size())
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    for name in (SETTINGS_FILE, MAP_FILE, "added_tokens.json"):
        (folder / name).unlink(missing_ok=True)
        if name in files:
            (folder / name).write_text(json.dumps(files[name]), encoding="utf-8")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer, minisink.load(folder)
    for typed in (False, True):
        theirs.encode_special_tokens = ours.tokenizer.encode_special_tokens = typed
        ids = theirs.encode(f"to {MARK} day", add_special_tokens=False).ids
        if max(ids) < ours.config.vocab_size:
            assert ours.encode(f"to {MARK} day", bos=False).tolist() == ids
        else:
            assert MARK not in ours.tokenizer.get_vocab()


@pytest.mark.parametrize("name", shipped_names())
def test_a_text_begins_as_in_transformers_with_what_ships(name, tmp_path):
    """And with a copy of it: transformers' own class for GPT-NeoX and MPT would begin no text."""
    model = minisink.load(name)
    model.save(tmp_path)
    for folder in (shipped(name), tmp_path):
        theirs = transformers.AutoTokenizer.from_pretrained(folder)("It was a dark night.").input_ids
        assert model.encode("It was a dark night.").tolist() == theirs


def zero_sink(config):
    """A cache of transformers that holds one key and one value of zeros in each layer.

    The key's score is 0, so it adds exp(0) = 1 to the denominator; its value adds nothing. So plain softmax over it
    and the text is softmax1. Places are one higher than without it, which rotary positions do not feel.
    """
    past = transformers.DynamicCache(config=config)
    for layer in range(config.num_hidden_layers):
        zeros = torch.zeros(1, config.num_key_value_heads, 1, config.head_dim, dtype=torch.float64)
        past.update(zeros, zeros, layer)
    return past


@pytest.mark.parametrize("name", shipped_names())
def test_transformers_loads_what_ships(name):
    """Logits of the same text; for softmax1, which transformers does not know, it begins with a key of zeros."""
    ours = minisink.load(name)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        shipped(name), dtype=torch.float32, output_loading_info=True
    )
    assert {fault: list(names) for fault, names in info.items() if names} == {}
    ids = ours.encode(sample_text().read_text(encoding="utf-8"))[:100]
    past = zero_sink(theirs.config) if ours.config.softmax == "softmax1" else None
    assert_close(ours.forward(ids), logits_of(theirs, ids, past))


def test_softmax1_of_a_drawn_model(tmp_path):
    """One key and value of zeros make it softmax1, also where key/value heads are shared."""
    sizes = {"hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 20}
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=37, num_hidden_layers=2, **sizes, initializer_range=0.5)
    theirs = transformers.LlamaForCausalLM(config)
    theirs.save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"minisink": {"softmax": "softmax1", "sink_logit": False}}))
    ours = minisink.load(tmp_path).forward(some_ids(0))
    assert np.abs(ours - logits_of(theirs, some_ids(0))).max() > 0.1
    assert_close(ours, logits_of(theirs, some_ids(0), zero_sink(config)))


@pytest.mark.parametrize("kind", but_for("Llama", "Qwen2", "Mistral", "GPT2"))
@drawn
@given(st.data())
def test_cached_decoding(kind, data):
    """One token at a time on both sides, logits compared at every step."""
    case = data.draw(models(kind))
    model, how = build(*case), case[-1]
    ids = some_ids(how["seed"])
    with written(model, how) as folder:
        ours = minisink.load(folder)
    cache = minisink.new_cache(ours, minisink.Dense())
    past = transformers.DynamicCache(config=model.config)
    model.double()
    for token in ids:
        with torch.no_grad():
            theirs = model(torch.tensor([[token]]), past_key_values=past, use_cache=True).logits[0].numpy()
        assert_close(ours.forward([token], cache=cache), theirs)


def make_room(past, n_sinks, angles):
    """Take the oldest key of the window from a cache of transformers.

    With the angles of one position those that move down a slot are rotated back by it, since they are kept rotated.
    """
    for layer in past.layers:
        sinks, moved = layer.keys[:, :, :n_sinks], layer.keys[:, :, n_sinks + 1 :]
        if angles is not None:
            cos, sin = angles
            R = cos.shape[-1]  # of GPT-NeoX a part of the head
            moved = torch.cat((rotate(moved[..., :R], (cos, -sin)), moved[..., R:]), dim=-1)
        layer.keys = torch.cat((sinks, moved), dim=2)
        layer.values = torch.cat((layer.values[:, :, :n_sinks], layer.values[:, :, n_sinks + 1 :]), dim=2)


@pytest.mark.parametrize("positions", ["slot", pytest.param("original", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", but_for("GPT2", "Mpt", "GPTNeoX"))
@drawn
@given(st.data(), st.integers(0, 3), st.integers(1, 6))
def test_a_cache_that_evicts(kind, positions, data, n_sinks, window):
    """transformers with its cache cut to sinks and window, and positions given by hand.

    Learned positions stay with what is cached. A slope needs nothing: transformers takes distances in the cache, so
    that it has no "original".
    """
    if (kind, positions) == ("Mpt", "original"):
        pytest.skip("transformers takes distances in the cache")
    case = data.draw(models(kind))
    model, how = build(*case), case[-1]
    ids = some_ids(how["seed"])
    with written(model, how) as folder:
        ours = minisink.load(folder)
    cache = minisink.new_cache(ours, minisink.Streaming(n_sinks, window, positions))
    past = transformers.DynamicCache(config=model.config)
    body, capacity = model.double().base_model, n_sinks + window
    moves = positions == "slot" and hasattr(body, "rotary_emb")
    one = body.rotary_emb(torch.zeros(1, dtype=torch.float64), torch.tensor([[1]])) if moves else None
    for t, token in enumerate(ids):
        if t >= capacity:
            make_room(past, n_sinks, one)
        place = torch.tensor([[min(t, capacity - 1) if positions == "slot" else t]])
        with torch.no_grad():
            theirs = model(torch.tensor([[token]]), past_key_values=past, position_ids=place).logits[0].numpy()
        assert_close(ours.forward([token], cache=cache), theirs)


# The scheme of StreamingLLM's authors, as benchmarks/parity.py has it --------------------------------


class Pair:
    """One folder loaded by both, and some text it can read."""

    def __init__(self, folder):
        self.ours = minisink.load(folder)
        self.theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.ids = self.ours.encode(sample_text().read_text(encoding="utf-8")[:3000])[:600]
        assert len(self.ids) == 600  # several blocks of the fast path, and eviction nearly all the way


@pytest.fixture(scope="module")
def novels(novels_folder):
    return Pair(novels_folder)


@pytest.fixture(scope="module")
def stories(stories_folder):
    return Pair(stories_folder)


CACHES = [(0, 31), (1, 30), (4, 11), (4, 60), (4, 123), (9, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["slot", "original"])
@pytest.mark.parametrize(("start", "recent"), CACHES)
@pytest.mark.parametrize("name", ["novels", "stories"])
def test_the_loss_is_that_of_the_authors(name, start, recent, positions, request):
    """The authors' (start, recent) is minisink's (n_sinks, window = recent + 1): here the current token counts."""
    pair = request.getfixturevalue(name)
    method = minisink.Streaming(start, recent + 1, positions)
    theirs = authors_nll(pair.theirs, pair.ids, start, recent, positions)
    ours = minisink.token_nll(pair.ours, pair.ids, method)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    if positions == "slot":
        cached = transformers_nll(pair.theirs, pair.ids[:200], start, recent + 1)
        np.testing.assert_allclose(ours[:199], cached, rtol=0, atol=1e-4)
    if start == 0:
        window = minisink.Window(recent + 1, positions)
        np.testing.assert_array_equal(minisink.token_nll(pair.ours, pair.ids, window), ours)
    # the readable path too: the cache of the paper, a token at a time
    readable = minisink.new_cache(pair.ours, method)
    logits = np.concatenate([pair.ours.forward([token], cache=readable) for token in pair.ids[:200]])
    logits = logits.astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=-1)) - logits[np.arange(200), pair.ids[1:201]]
    np.testing.assert_allclose(losses, theirs[:200], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["novels", "stories"])
def test_dense_loss(name, request):
    """Also beyond the trained length, where the loss is bad but the same."""
    pair = request.getfixturevalue(name)
    logits = torch.tensor(logits_of(pair.theirs, pair.ids))
    pair.theirs.float()
    theirs = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(pair.ids[1:]), reduction="none").numpy()
    np.testing.assert_allclose(minisink.token_nll(pair.ours, pair.ids, minisink.Dense()), theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("window", [7, 64])
def test_recomputed_loss(novels, window):
    """Every window from scratch in transformers, at positions 0 to window - 1."""
    ids = novels.ids[:200]
    theirs = []
    for t in range(len(ids) - 1):
        with torch.no_grad():
            logits = novels.theirs(torch.tensor(ids[max(0, t + 1 - window) : t + 1])[None]).logits[0, -1]
        theirs.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[t + 1]))))
    ours = minisink.token_nll(novels.ours, ids, minisink.Recompute(window))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_greedy_text(novels):
    """What transformers' own generate writes, at temperature 0 and within the trained length."""
    prompt = novels.ids[:40]
    options = {"max_new_tokens": 60, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    tensor = torch.tensor(prompt)[None]
    # the mask must be given: transformers would take <s>, id 0, for padding and hide the sink
    theirs = novels.theirs.generate(tensor, attention_mask=torch.ones_like(tensor), **options)[0, 40:]
    ours = minisink.generate(novels.ours, prompt, minisink.Dense(), max_new_tokens=60)
    assert list(ours) == theirs.tolist()


# GGUF files ---------------------------------------------------------------------------------------


def gguf_pair(path, dtype=torch.float32):
    """A GGUF file read by both."""
    pytest.importorskip("gguf", reason="needs the gguf extra")
    pytest.importorskip("accelerate", reason="transformers reads a GGUF file with accelerate")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
    return minisink.load(path), theirs.eval()


def close_to_the_largest(ours, theirs, ids):
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids)[None]).logits[0].numpy()
    assert abs(ours.forward(ids) - wanted).max() <= 1e-4 * abs(wanted).max()


QUANTS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]


@st.composite
def gguf_models(draw, kind):
    """(architecture, what is not as in `tiny`, type of the matrices); rows come in blocks of 32 or 256."""
    block = 256 if kind.endswith("_K") else 32
    arch = draw(st.sampled_from(["llama", "qwen2", "gpt2"]))
    n_kv_heads, groups = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2]))
    changes = {"n_layers": draw(st.integers(1, 2)), "n_heads": n_kv_heads * groups, "d_model": block}
    changes |= {"tied": draw(st.booleans())}
    if arch == "gpt2":  # transformers takes the inner width and the number of positions from its defaults
        return gpt2, changes | {"d_ff": 4 * block, "max_positions": 1024}
    changes |= {"n_kv_heads": n_kv_heads, "head_dim": block // changes["n_heads"]}
    changes |= {"d_ff": block * draw(st.sampled_from([1, 2])), "rope_theta": draw(st.sampled_from([1e4, 1e5]))}
    changes |= {"norm_eps": draw(st.sampled_from([1e-5, 1e-6])), "model_type": arch, "qkv_bias": arch == "qwen2"}
    return llama, changes


def quantised(array, kind, random):
    """The bytes of a matrix of a type; random ones where gguf can only read it, each scale a small finite number."""
    gguf = pytest.importorskip("gguf", reason="needs the gguf extra")
    type_ = gguf.GGMLQuantizationType[kind]
    if not kind.endswith("_K"):
        return gguf.quants.quantize(array, type_), type_
    raw = random.integers(0, 256, gguf.quants.quant_shape_to_byte_shape(array.shape, type_), np.uint8)
    blocks = raw.reshape(-1, gguf.GGML_QUANT_SIZES[type_][1])
    scales = slice(-2, None) if kind == "Q6_K" else slice(0, 4)  # of the block: one half, or two
    size = blocks[:, scales].shape[1] // 2
    blocks[:, scales] = random.uniform(1e-4, 3e-4, (len(blocks), size)).astype("<f2").view(np.uint8)
    return raw, type_


@pytest.mark.sampled
@pytest.mark.parametrize("kind", QUANTS)
@settings(drawn, max_examples=6)
@given(st.data())
def test_a_gguf_file_gives_their_logits(kind, data):
    """Grouped heads or not, tied and untied, Llama, Qwen2 and GPT-2, every type: to 1e-4 of the largest."""
    gguf_files = pytest.importorskip("gguf_files")
    about = gguf_files.byte_level(**{"tokenizer.ggml.pre": "gpt-2"})
    arch, changes = data.draw(gguf_models(kind))
    seed = data.draw(st.integers(0, 99))
    model = tiny.make(arch, seed, np.float32, vocab_size=len(about["tokenizer.ggml.tokens"]), **changes)
    tensors, random = gguf_files.stored(model), np.random.default_rng(seed)
    for name, array in tensors.items():
        if array.ndim == 2:
            tensors[name] = quantised(array, kind, random)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        gguf_files.write(path, gguf_files.metadata(model.config) | about, tensors)
        ours, theirs = gguf_pair(path)
    assert ours.config.tied == model.config.tied
    close_to_the_largest(ours, theirs, np.random.default_rng(seed).integers(0, 250, 23))


@pytest.mark.real
def test_smollm2_gives_their_logits(tmp_path):
    """The real file, and the folder it is saved as, in float32."""
    try:
        path = package.installed("smollm2")
    except minisink.CheckpointError as error:
        pytest.skip(str(error))
    ours, theirs = gguf_pair(path)
    ids = ours.encode(sample_text().read_text(encoding="utf-8")[:2000])[:200]
    close_to_the_largest(ours, theirs, ids)
    ours.save(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    close_to_the_largest(ours, again, ids)
    text = "In 1889: \u00b2 \u0663 \u00bd"
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == ours.encode(text).tolist()
