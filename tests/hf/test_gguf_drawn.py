"""GGUF files drawn at random, against transformers: each loads to its logits, or is refused by name.

What a file should hold is worked out here as llama.cpp's converter does it, from a model of transformers: names by the
package gguf, queries and keys permuted, every matrix of a type of its own. The model then takes the numbers that gguf
makes of the bytes. Nothing here asks minisink what a file means.
"""

import collections
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from gguf_files import byte_level, gguf, permute, tensor_changed, write
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from profiles import examples

import minisink

torch = pytest.importorskip("torch", reason="needs the parity extra: torch")
transformers = pytest.importorskip("transformers", reason="needs the parity extra: transformers")
pytestmark = [pytest.mark.filterwarnings(f"ignore:::{package}") for package in ("torch", "transformers")]

TYPES = gguf.GGMLQuantizationType
WORDS = len(byte_level()["tokenizer.ggml.tokens"])
ARCHS = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gpt2": "GPT2"}
ARCHS |= {"gptneox": "GPTNeoX", "falcon": "Falcon", "mpt": "Mpt"}
LLAMAS = ("llama", "qwen2", "qwen3")
UNROTATED = ("gpt2", "mpt")
READ_BY_IT = ("llama", "qwen2", "gpt2")  # of the others transformers does not read every size
MADE = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 TQ1_0 TQ2_0 MXFP4".split()  # gguf can write these
# Those it can only read: which bytes of a block are its scales, as halves
SCALES = {
    "Q2_K": slice(80, 84),
    "Q3_K": slice(108, 110),
    "Q4_K": slice(0, 4),
    "Q5_K": slice(0, 4),
    "Q6_K": slice(208, 210),
}
SCALES |= dict.fromkeys("IQ1_S IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ4_NL IQ4_XS".split(), slice(0, 2))
SCALES |= {"IQ1_M": slice(48, 56), "NVFP4": slice(0, 4)}  # in bits of four words; one byte each

# How the positions of a file may be scaled: keys, transformers' rule, factors in a tensor
LINEAR, PLAIN = {"rope_type": "linear", "factor": 2.5}, {"rope_type": "default"}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}
SCALINGS = [
    ({}, PLAIN, False),
    ({"scaling.type": "linear", "scaling.factor": 2.5}, LINEAR, False),
    ({"scaling.factor": 2.5}, LINEAR, False),
    ({"scale_linear": 2.5}, LINEAR, False),
    ({"scaling.type": "linear", "scale_linear": 2.5, "scaling.attn_factor": 1.0}, LINEAR, False),
    ({"scaling.factor": 2.5, "scale_linear": 9.0}, LINEAR, False),
    ({"scaling.factor": 0.0, "scale_linear": 9.0}, PLAIN, False),
    ({"scaling.type": "none", "scaling.factor": 9.0}, PLAIN, False),
    ({"scaling.type": "linear", "scaling.factor": 1.0}, PLAIN, False),
    ({"scaling.original_context_length": 64}, LLAMA3, True),
    ({}, PLAIN, True),
    ({"scaling.factor": 2.5}, LINEAR, True),
]
# Keys that leave the logits as they are
SAME = [
    *[
        ("expert_count", 0),
        ("expert_used_count", 0),
        ("logit_scale", 1.0),
        ("tensor_data_layout", "Meta AI original pth"),
    ],
    *[
        ("attention.causal", True),
        ("attention.clamp_kqv", 0.0),
        ("attention.scale", 0.0),
        ("use_parallel_residual", False),
    ],
    *[("rope.scaling.finetuned", False), ("rope.scaling.yarn_beta_fast", 32.0), ("rope.scaling.yarn_ext_factor", 0.0)],
    *[("pooling_type", 0), ("residual_scale", 1.0), ("rope.scaling.attn_factor", 1.0), ("nextn_predict_layers", 0)],
]
# Keys that would change them, or might
OTHER = [
    *[("expert_count", 8), ("logit_scale", 0.5), ("residual_scale", 0.25), ("embedding_scale", 12.0), ("sharpness", 2)],
    *[("attention.causal", False), ("attention.clamp_kqv", 8.0), ("attention.scale", 0.07), ("attention.sinks", True)],
    *[("attention.sliding_window", 16), ("attention.max_alibi_bias", -8.0), ("attention.value_length", 10)],
    *[("final_logit_softcapping", 30.0), ("attn_logit_softcapping", 50.0)],
]
OTHER_ROPE = [
    *[("rope.scaling.type", "yarn"), ("rope.scaling.attn_factor", 1.2), ("rope.scaling.yarn_ext_factor", 1.0)],
    *[("rope.dimension_count", 9), ("rope.scaling.alpha", 2.0), ("rope.dimension_sections", [1, 1, 0, 0])],
]
TENSORS = ["missing", "extra", "of another shape", "of another type", "moved by 4", "moved by 32", "moved upon another"]
NAMES = [("general.architecture", "mamba"), ("general.type", "adapter"), ("split.count", 2)]


@st.composite
def files(draw):
    """Everything about a file that is not a weight: sizes, keys, and what is wrong with it, if anything."""
    arch = draw(st.sampled_from([*ARCHS]))
    asked = arch in READ_BY_IT and draw(st.integers(0, 3)) == 2  # transformers reads the file itself, if it can
    n_heads, d_model = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([8, 32, 64, 256]))
    drawn = {"arch": arch, "asked": asked, "seed": draw(st.integers(0, 2**20)), "n_heads": n_heads, "d_model": d_model}
    if arch == "mpt" and draw(st.booleans()):  # heads that are no power of two have slopes of two sequences
        drawn |= {"n_heads": (n_heads := draw(st.sampled_from([3, 6]))), "d_model": (d_model := 96)}
    drawn |= {"n_layers": draw(st.integers(1, 2)), "eps": draw(st.sampled_from([1e-5, 1e-6, 1e-2]))}
    drawn |= {"d_ff": 4 * d_model if asked or arch == "mpt" else draw(st.sampled_from([12, 32, 96, 256]))}
    drawn |= {"positions": 1024 if asked else draw(st.sampled_from([24, 64]))}
    drawn |= {
        "head": draw(st.sampled_from(["tied", "untied", "twice"])),
        "words": WORDS if asked else draw(st.sampled_from([None, None, WORDS])),
    }
    drawn |= {"align": draw(st.sampled_from([None, None, 8, 128])), "version": draw(st.sampled_from([3, 3, 2]))}
    drawn |= {"name": draw(st.sampled_from(["model.gguf", "MODEL.GGUF", "sha256-0f1e"])), "scaling": SCALINGS[0]}
    drawn["same"] = [] if asked else draw(st.lists(st.sampled_from(SAME), max_size=3))
    drawn |= {"n_kv_heads": n_heads, "head_dim": d_model // n_heads}
    drawn |= {"parallel": draw(st.booleans()), "n_norms": draw(st.sampled_from([1, 2]))}
    drawn |= {"rotary_pct": draw(st.sampled_from([0.25, 0.5, 1.0])) if drawn["head_dim"] >= 8 else 1.0}
    if arch in LLAMAS or arch == "falcon":
        drawn["n_kv_heads"] = draw(st.sampled_from([n for n in (1, 2, 4) if n_heads % n == 0]))
    if arch in LLAMAS and not asked:
        drawn["head_dim"] = draw(st.sampled_from([d_model // n_heads, 2, 6, 32, 64]))
    if arch not in UNROTATED:
        drawn["theta"] = draw(st.sampled_from([1e4, 5e5]))
        drawn["biases"] = {name: arch == "llama" and not asked and draw(st.booleans()) for name in ("attention", "mlp")}
        scalings = SCALINGS if arch in LLAMAS else [scaling for scaling in SCALINGS if not scaling[2]]
        drawn["scaling"] = SCALINGS[0] if asked else draw(st.sampled_from(scalings))
    keys = st.sampled_from(OTHER if arch in UNROTATED else OTHER + OTHER_ROPE).map(
        lambda pair: (f"{arch}.{pair[0]}", pair[1])
    )
    wrong = [
        st.tuples(st.just("key"), keys | keys | st.sampled_from(NAMES)),
        st.tuples(st.just("tensor"), st.sampled_from(TENSORS)),
    ]
    drawn["wrong"] = draw(st.none() | st.none() | st.one_of(wrong)) if not asked else None
    return drawn


def theirs_of(drawn):
    """The model of transformers, its numbers drawn at random."""
    arch, vocab_size = drawn["arch"], drawn["words"] or 37
    sizes = {"vocab_size": vocab_size, "tie_word_embeddings": drawn["head"] != "untied"}
    sizes |= {"bos_token_id": None, "eos_token_id": None}
    if arch == "gpt2":
        sizes |= {"n_embd": drawn["d_model"], "n_layer": drawn["n_layers"], "n_head": drawn["n_heads"]}
        sizes |= {"n_inner": drawn["d_ff"], "n_positions": drawn["positions"], "layer_norm_epsilon": drawn["eps"]}
    elif arch == "mpt":
        sizes |= {"d_model": drawn["d_model"], "n_layers": drawn["n_layers"], "n_heads": drawn["n_heads"]}
        sizes |= {"max_seq_len": drawn["positions"], "layer_norm_epsilon": drawn["eps"]}
    else:
        sizes |= {"hidden_size": drawn["d_model"], "num_hidden_layers": drawn["n_layers"]}
        sizes |= {"num_attention_heads": drawn["n_heads"], "max_position_embeddings": drawn["positions"]}
        rope = {**drawn["scaling"][1], "rope_theta": drawn["theta"]}
        rope |= {"partial_rotary_factor": drawn["rotary_pct"]} if arch == "gptneox" else {}
        sizes |= {"rope_parameters": rope}
    if arch in LLAMAS:
        sizes |= {"num_key_value_heads": drawn["n_kv_heads"], "head_dim": drawn["head_dim"]}
        sizes |= {"rms_norm_eps": drawn["eps"], "intermediate_size": drawn["d_ff"]}
        sizes |= {f"{name}_bias": there for name, there in drawn["biases"].items()} if arch == "llama" else {}
    elif arch == "gptneox":
        sizes |= {"intermediate_size": drawn["d_ff"], "layer_norm_eps": drawn["eps"]}
        sizes |= {"use_parallel_residual": drawn["parallel"]}
    elif arch == "falcon":
        sizes |= {"ffn_hidden_size": drawn["d_ff"], "layer_norm_epsilon": drawn["eps"], "bias": False}
        sizes |= {"alibi": False, "parallel_attn": True, "num_kv_heads": drawn["n_kv_heads"]}
        old = drawn["n_kv_heads"] == 1 and drawn["n_norms"] == 1 and drawn["parallel"]  # Falcon-7B's config
        sizes |= {"multi_query": old, "new_decoder_architecture": not old}
        sizes |= {} if old else {"num_ln_in_parallel_attn": drawn["n_norms"]}
    config = getattr(transformers, f"{ARCHS[arch]}Config")(**sizes)
    return getattr(transformers, f"{ARCHS[arch]}{'LMHeadModel' if arch == 'gpt2' else 'ForCausalLM'}")(config).eval()


def order_of(name, n_rows, drawn):
    """Which rows of transformers' array the rows of the file are: as the converters of llama.cpp have it."""
    rows, H, K = np.arange(n_rows), drawn["n_heads"], drawn["n_kv_heads"]
    layer = name.split(".")[-2]
    if drawn["arch"] == "llama" and layer in ("q_proj", "k_proj"):
        return permute(rows, H if layer == "q_proj" else K)
    if layer == "query_key_value":
        groups = rows.reshape(K, H // K + 2, -1)  # of each key head its queries, the key, the value
        return np.concatenate([groups[:, :-2].ravel(), groups[:, -2].ravel(), groups[:, -1].ravel()])
    return rows


def bytes_of(array, kind, random):
    """The bytes of a matrix of a type: those of its numbers, or, if gguf cannot write it, drawn ones of small scale."""
    type_ = TYPES[kind]
    if kind in MADE:
        return gguf.quants.quantize(array, type_)
    raw = random.integers(0, 256, gguf.quants.quant_shape_to_byte_shape(array.shape, type_), np.uint8)
    blocks = raw.reshape(-1, gguf.GGML_QUANT_SIZES[type_][1])
    scales = blocks[:, SCALES[kind]]
    if kind == "NVFP4":
        scales[:] = random.integers(8, 24, scales.shape)
    elif kind == "IQ1_M":  # 2**-9, a nibble in each of four words
        scales[:, 1::2] = scales[:, 1::2] & 15 | np.array([0, 0, 8, 1], np.uint8) << 4
    else:
        size = scales.shape[1] // 2
        scales[:] = random.uniform(1e-4, 1e-3, (len(blocks), size)).astype("<f2").view(np.uint8)
    return raw


def rope_factors(rule, head_dim, theta):
    """By what each frequency is divided, as the converter of llama.cpp has it."""
    if rule["rope_type"] != "llama3":
        return np.ones(head_dim // 2, np.float32)
    lengths = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((rule["original_max_position_embeddings"] / lengths - 1) / 3, 0, 1)
    return (1 / ((1 - smooth) / rule["factor"] + smooth)).astype(np.float32)


def tensors_of(theirs, drawn, random):
    """The tensors of the file; the model gets the numbers that are in them."""
    arch, state = drawn["arch"], theirs.state_dict()
    name_of = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], drawn["n_layers"]).get_name
    tensors = {}
    for name, parameter in theirs.named_parameters():  # a tied head is none
        is_matrix, is_lookup = parameter.ndim == 2, ".wte." in name or ".wpe." in name
        turned = arch == "gpt2" and is_matrix and not is_lookup and "lm_head" not in name
        array = random.normal(0.0, 0.3, parameter.shape).astype(np.float32) + ("norm" in name or ".ln_" in name)
        array = array.T if turned else array
        order = order_of(name, len(array), drawn)
        array = np.ascontiguousarray(array[order])
        kinds = [kind for kind in [*MADE, *SCALES] if array.shape[-1] % gguf.GGML_QUANT_SIZES[TYPES[kind]][0] == 0]
        kind = str(random.choice(kinds if is_matrix else ["F32", "F32", "F16", "BF16"]))
        raw = bytes_of(array, kind, random)
        tensors[name_of(name, try_suffixes=(".weight", ".bias"))] = (raw, TYPES[kind])
        array = gguf.quants.dequantize(raw, TYPES[kind])
        array = array[np.argsort(order)]
        state[name].copy_(torch.tensor(array.T if turned else array))
    if drawn["head"] == "twice":
        tensors["output.weight"] = tensors["token_embd.weight"]
    if drawn["scaling"][2]:
        tensors["rope_freqs.weight"] = rope_factors(drawn["scaling"][1], drawn["head_dim"], drawn["theta"])
    return {name: tensors[name] for name in random.permutation([*tensors])}


def metadata_of(drawn, random):
    """The keys of the file, in any order; those that may be left out are, at times."""
    arch, optional = drawn["arch"], {}
    about = {
        "block_count": drawn["n_layers"],
        "embedding_length": drawn["d_model"],
        "feed_forward_length": drawn["d_ff"],
    }
    about |= {"attention.head_count": drawn["n_heads"], "context_length": drawn["positions"]}
    about[f"attention.layer_norm_{'rms_' if arch in LLAMAS else ''}epsilon"] = drawn["eps"]
    if arch not in UNROTATED:
        about |= {"rope.freq_base": drawn["theta"]}
        about |= {f"rope.{key}": value for key, value in drawn["scaling"][0].items()}
        n_rotated = int(drawn["head_dim"] * (drawn["rotary_pct"] if arch == "gptneox" else 1))
        (about if n_rotated < drawn["head_dim"] else optional)["rope.dimension_count"] = n_rotated
    if arch in LLAMAS:
        of_heads = {"attention.key_length": drawn["head_dim"], "attention.value_length": drawn["head_dim"]}
        own = about if drawn["head_dim"] * drawn["n_heads"] != drawn["d_model"] else optional
        own |= of_heads
    about |= {"use_parallel_residual": drawn["parallel"]} if arch == "gptneox" else {}
    about |= {"attention.max_alibi_bias": 8.0} if arch == "mpt" else {}  # transformers takes 8 whatever a config says
    grouped = drawn["n_kv_heads"] != drawn["n_heads"]
    (about if grouped else optional)["attention.head_count_kv"] = drawn["n_kv_heads"]
    (optional if drawn["words"] else about)["vocab_size"] = drawn["words"] or 37
    about |= {key: value for key, value in optional.items() if drawn["asked"] or random.random() < 0.5}
    about = {f"{arch}.{key}": value for key, value in {**dict(drawn["same"]), **about}.items()}
    about |= {"general.architecture": arch, "general.name": "drawn", "quantize.imatrix.chunks_count": 7}
    about |= {"general.alignment": drawn["align"]} if drawn["align"] else {}
    if drawn["words"]:
        about |= byte_level(
            **{"tokenizer.ggml.pre": str(random.choice(["gpt-2", "qwen2", "llama3", "falcon", "mpt", "smollm"]))}
        )
    return {key: about[key] for key in random.permutation([*about])}


def spoiled(drawn, about, tensors, path, random):
    """Write the file with what is wrong with it; returns what a refusal must name."""
    what, which = drawn["wrong"]
    if what == "key":
        write(path, about | dict([which]), tensors)
        return which[0]
    names = [name for name in tensors if name not in ("output.weight", "rope_freqs.weight")]  # a model may go without
    name = str(random.choice([name for name in names if not name.endswith(".bias")]))
    raw, kind = tensors[name]
    if which == "missing":
        del tensors[name]
    elif which == "extra":
        tensors[name := "blk.7.attn_sinks.weight"] = (raw, kind)
    elif which == "of another shape":
        tensors[name] = np.zeros((3, 5), np.float32)
    elif which == "of another type":
        tensors[name] = gguf.quants.dequantize(raw, kind).astype(np.float64)
    write(path, about, tensors)
    if which.startswith("moved"):
        content = path.read_bytes()
        at = content.index(name.encode()) + len(name)
        n_axes = int.from_bytes(content[at : at + 4], "little")
        offset = int.from_bytes(content[at + 8 + 8 * n_axes : at + 16 + 8 * n_axes], "little")
        by = {"moved by 4": 4, "moved by 32": 32 * 128}.get(which)
        offset = offset + by if by else 0 if offset else 4096
        path.write_bytes(tensor_changed(content, name, offset=offset) + bytes(8192))
        return "tensor "  # it, or the one that it lies upon
    return name


def outcome(drawn, folder):
    """Write a file, load it and compare: what came of it."""
    random, path = np.random.default_rng(drawn["seed"]), Path(folder, drawn["name"])
    theirs = theirs_of(drawn)
    about, tensors = metadata_of(drawn, random), tensors_of(theirs, drawn, random)
    if drawn["wrong"]:
        said = spoiled(drawn, about, tensors, path, random)
        with pytest.raises(minisink.CheckpointError) as caught:
            minisink.load(path)
        assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)
        return f"refused: {drawn['wrong'][0]}"
    write(path, about, tensors)
    content = path.read_bytes()
    path.write_bytes(content[:4] + drawn["version"].to_bytes(4, "little") + content[8:])
    ours, ids = minisink.load(path), random.integers(0, 37, 20)
    if drawn["asked"]:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=path.name, dtype=torch.float32
        ).eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor(ids)[None]).logits[0].numpy()
    assert abs(ours.forward(ids) - wanted).max() <= 1e-4 * abs(wanted).max()
    return "transformers read it, too" if drawn["asked"] else "loaded"


@pytest.mark.slow
def test_drawn_files_give_their_logits_or_are_refused():
    """Types, shapes, keys, orders, what is wrong: nothing loads to other logits, nothing sound is refused."""
    pytest.importorskip("accelerate", reason="transformers reads a GGUF file with accelerate")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # the models are tiny
    seen, loaded = collections.Counter(), set()

    @examples(1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(files())
    def compare(drawn):
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.filterwarnings("error", message=".* holds NaN")  # then equal logits would prove nothing
            warnings.filterwarnings("ignore", message=".* (is not read|has no rule)")
            seen[what := outcome(drawn, folder)] += 1
            loaded.update({drawn["arch"]} if what == "loaded" else ())

    compare()
    kinds = {"loaded", "transformers read it, too", "refused: key", "refused: tensor"}
    assert seen.keys() == kinds and min(seen.values()) > sum(seen.values()) / 50, seen
    assert loaded == ARCHS.keys()
