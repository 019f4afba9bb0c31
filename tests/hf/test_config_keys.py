"""Configs of GPT-NeoX, MPT, Falcon and Qwen3: every spelling read as transformers reads it, or refused by name.

And of the families near to them, which are refused, also where one calls itself by a name that is known.
"""

import functools
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from profiles import examples

from minisink.families import falcon, gpt_neox
from minisink.hf.arrays import by_head, by_kind
from minisink.hf.folder import config_of, raw_of

NEOX = {
    "model_type": "gpt_neox", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
    "intermediate_size": 40, "vocab_size": 37,
}  # fmt: skip
MPT = {"model_type": "mpt", "d_model": 24, "n_heads": 3, "n_layers": 2, "vocab_size": 37}
FALCON = {
    "model_type": "falcon", "hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 2, "vocab_size": 37,
}  # fmt: skip
QWEN3 = {
    "model_type": "qwen3", "hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 2, "intermediate_size": 40, "vocab_size": 37, "head_dim": 8,
}  # fmt: skip
OURS = {"gpt_neox": NEOX, "mpt": MPT, "falcon": FALCON, "qwen3": QWEN3}
BASE = {"n_layer": 2, "n_head": 6, "hidden_size": 48, "vocab_size": 37, "alibi": False, "parallel_attn": True}
SLIDES = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}


def attention(**about):
    """An MPT of these keys of attention."""
    return MPT | {"attn_config": about}


# One key at a time --------------------------------------------------------------------------------

REFUSED = [
    # what is wrong, and what is said of it
    (NEOX | {"rotary_pct": 0.2}, "rotary_pct is 0.2: 3 of the 16 channels of a head would rotate"),
    (NEOX | {"rotary_pct": 0.05}, "rotary_pct is 0.05: 0 of the 16 channels of a head would rotate"),
    (NEOX | {"rotary_pct": 1.25}, "rotary_pct is 1.25: 20 of the 16 channels of a head would rotate"),
    (NEOX | {"rotary_pct": 0}, "partial_rotary_factor is 0|rotary_pct is 0; it must be a number above 0"),
    (NEOX | {"rotary_pct": "a quarter"}, "rotary_pct is 'a quarter'; it must be a number"),
    (NEOX | {"rotary_emb_base": -1}, "rotary_emb_base is -1; it must be a number"),
    (NEOX | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope type is 'yarn'"),
    (NEOX | {"hidden_act": "relu"}, "hidden_act is 'relu', which is not supported"),
    (NEOX | {"num_attention_heads": 5}, "hidden_size is 64, which num_attention_heads 5 does not divide"),
    (NEOX | {"attention_bias": 1}, "attention_bias is 1; it must be true or false"),
    (attention(alibi=False), "alibi is False, which is not supported"),
    (attention(alibi_bias_max=0), "alibi_bias_max is 0; it must be a number above 0"),
    (attention(alibi_bias_max=-8), "alibi_bias_max is -8; it must be a number above 0"),
    (attention(alibi_bias_max="8"), "alibi_bias_max is '8'; it must be a number above 0"),
    (attention(clip_qkv=6), "clip_qkv is 6, which is not supported"),
    (attention(softmax_scale=0.5), "softmax_scale is 0.5, which is not supported"),
    (attention(qk_ln=True), "qk_ln is True, which is not supported"),
    (attention(prefix_lm=True), "prefix_lm is True, which is not supported"),
    (attention(attn_type="multiquery_attention"), "attn_type is 'multiquery_attention', which is not supported"),
    (attention(kv_n_heads=1), "kv_n_heads is 1, which is not supported"),
    (attention(rope=True), "rope is True, which is not supported"),
    (MPT | {"attn_config": 8}, "attn_config is 8; it must be an object"),
    (MPT | {"logit_scale": "inv_sqrt_d_model"}, "logit_scale is 'inv_sqrt_d_model', which is not supported"),
    (MPT | {"norm_type": "rmsnorm"}, "norm_type is 'rmsnorm', which is not supported"),
    (MPT | {"ffn_config": {"ffn_type": "mptglu"}}, "ffn_config is {'ffn_type': 'mptglu'}, which is not supported"),
    (FALCON | {"alibi": True}, "alibi is True, which is not supported: Falcon rounds its slopes to bfloat16"),
    (BASE | {"model_type": "RefinedWebModel", "alibi": True}, "alibi is True"),
    (FALCON | {"activation": "relu"}, "activation is 'relu', which is not supported"),
    (FALCON | {"multi_query": False, "num_kv_heads": 2}, "num_kv_heads is 2, which is not supported"),
    (FALCON | {"new_decoder_architecture": True, "num_kv_heads": 4}, "num_attention_heads is 6, which num_kv_heads 4"),
    (FALCON | {"new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn is False"),
    (FALCON | {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 3}, "num_ln_in_parallel_attn is 3"),
    (FALCON | {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn is 2, .* new_decoder_architecture False"),
    (FALCON | {"hidden_size": 42}, "a head has 7 channels, hidden_size 42 / num_attention_heads 6: it must be even"),
    (BASE | {"model_type": "falcon"}, "num_attention_heads is missing"),
    (FALCON | {"n_head": 3}, "num_attention_heads is 6, but n_head, its other name, is 3"),
    (FALCON | {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection_post_layernorm is True"),
    (QWEN3 | SLIDES, "sliding_window is 8, shorter than max_position_embeddings 32768"),
    (QWEN3 | {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has 'sliding_attention'"),
    (QWEN3 | {"layer_types": ["full_attention"]}, r"layer_types is \['full_attention'\]; it must be a list of 2"),
    (QWEN3 | {"head_dim": 7}, "head_dim is 7; rotary positions need an even number"),
    *((raw | {"quantization_config": {"bits": 4}}, "quantization_config is") for raw in OURS.values()),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "said"), REFUSED, ids=[said[:40] for _, said in REFUSED])
def test_what_would_give_other_logits_is_refused_by_name(raw, said):
    with pytest.raises(ValueError, match=said) as caught:
        config_of(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model_type", OURS)
def test_each_size_is_needed(model_type):
    """A config with half of its keys is refused by the first that is missing; what is left has a default."""
    raw = OURS[model_type]
    read = config_of(raw)
    for key in raw.keys() - {"model_type", "num_key_value_heads", "head_dim"}:
        with pytest.raises(ValueError, match=f"{key} is missing"):
            config_of({k: value for k, value in raw.items() if k != key})
    assert read.max_positions == (32768 if model_type == "qwen3" else 2048)
    assert config_of(raw_of(read)) == read


def test_defaults():
    """As transformers has them."""
    neox, mpt, of_7b = (config_of(raw) for raw in (NEOX, MPT, FALCON))
    assert (neox.rotary_dim, neox.parallel, neox.bias, neox.activation, neox.tied) == (4, True, True, "gelu", False)
    assert (mpt.d_ff, mpt.alibi_bias_max, mpt.tied) == (96, 8, True)
    assert (of_7b.n_kv_heads, of_7b.d_ff, of_7b.parallel, of_7b.n_norms, of_7b.bias) == (1, 192, True, 1, False)
    del (short := dict(QWEN3))["num_key_value_heads"], short["head_dim"]
    qwen3 = config_of(short | {"num_attention_heads": 32})
    assert (qwen3.n_kv_heads, qwen3.head_dim, qwen3.qk_norm) == (32, 128, True)


def test_the_old_spellings_of_falcon():
    """RefinedWebModel is the form of 7B, RefinedWeb that of 40B; GPT-NeoX has a rotary_pct or a section."""
    one = config_of(BASE | {"model_type": "RefinedWebModel", "multi_query": True, "bias": False})
    assert one == config_of(FALCON)
    some = config_of(BASE | {"model_type": "RefinedWeb", "n_head_kv": 2})
    assert some == config_of(FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2})
    assert (some.n_kv_heads, some.n_norms) == (2, 2)
    each = config_of(BASE | {"model_type": "RefinedWebModel", "multi_query": False, "parallel_attn": False})
    assert each == config_of(FALCON | {"multi_query": False, "parallel_attn": False, "num_kv_heads": 6})
    about = {"rope_theta": 500.0, "partial_rotary_factor": 0.5}
    assert config_of(NEOX | {"rope_parameters": about}) == config_of(NEOX | {"rotary_emb_base": 500, "rotary_pct": 0.5})


WARNED = [
    (attention(alibi_bias_max=16), "alibi_bias_max is 16: it is used here; transformers always uses 8"),
    (MPT | {"expansion_ratio": 2}, "expansion_ratio is 2: it is not used, as in transformers"),
    (NEOX | {"rope_theta": 500.0}, "rope_theta is 500.0: it is not used, as in transformers"),
    (NEOX | {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5: it is not used, as in transformers"),
    (NEOX | {"alibi": True}, "alibi is True: it is not used, as in transformers"),
    (FALCON | {"rotary_pct": 0.5}, "rotary_pct is 0.5: it is not used, as in transformers"),
    (FALCON | {"sliding_window": 8}, "sliding_window is 8: every token is still seen"),
]


@pytest.mark.parametrize(("raw", "said"), WARNED, ids=[said[:30] for _, said in WARNED])
def test_what_is_not_used_is_warned_of(raw, said):
    with pytest.warns(UserWarning, match=said) as caught:
        config_of(raw)
    assert len(caught) == 1


@given(st.integers(1, 200), st.data())
def test_every_even_part_of_a_head_is_written_and_read(head_dim, data):
    """98 * (2 / 98) is less than 2."""
    rotary_dim = 2 * data.draw(st.integers(1, max(1, head_dim // 2)))
    sizes = {"d_model": 3 * max(2, head_dim), "n_layers": 1, "n_heads": 3, "d_ff": 5, "vocab_size": 7}
    config = gpt_neox.Config(**sizes, rotary_dim=rotary_dim)
    assert config_of(raw_of(config)) == config


@given(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.sampled_from([1, 2]))
def test_every_falcon_is_written_and_read(n_kv_heads, groups, parallel, n_norms):
    """Or refused: grouped keys want attention and MLP side by side."""
    n_heads = n_kv_heads * groups
    sizes = {"d_model": 8 * n_heads, "n_layers": 1, "d_ff": 5, "vocab_size": 7}
    heads = {"n_heads": n_heads, "n_kv_heads": n_kv_heads}
    config = falcon.Config(**sizes, **heads, parallel=parallel, n_norms=n_norms if parallel else 1)
    if parallel or n_kv_heads in (1, n_heads):
        assert config_of(raw_of(config)) == config
    else:
        with pytest.raises(ValueError, match=f"n_kv_heads is {n_kv_heads} and parallel False"):
            raw_of(config)


def test_what_no_config_can_say_is_not_written():
    with pytest.raises(ValueError, match="d_ff is 7; the MLP of an MPT is 4 times d_model wide, 96"):
        raw_of(replace(config_of(MPT), d_ff=7))
    with pytest.raises(ValueError, match="qk_norm is False, which a config.json of qwen3 cannot express"):
        raw_of(replace(config_of(QWEN3), qk_norm=False))
    with pytest.raises(ValueError, match="Qwen3 has one attention_bias"):
        raw_of(replace(config_of(QWEN3), o_bias=True))


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2))
def test_heads_are_told_apart_and_put_back(n_kv_heads, groups, half, n_outer):
    """By the loop over heads that the two orders are."""
    H, K, D = n_kv_heads * groups, n_kv_heads, 2 * half
    config = falcon.Config(d_model=H * D, n_layers=1, n_heads=H, n_kv_heads=K, d_ff=5, vocab_size=7)
    fused = np.random.default_rng(0).normal(size=(*(5, 4)[:n_outer], (H + 2 * K) * D))
    columns = [(kind, head, d) for k in range(K) for kind, head in
               [*(("q", k * groups + g) for g in range(groups)), ("k", k), ("v", k)] for d in range(D)]  # fmt: skip
    wanted = [columns.index((kind, head, d)) for kind, n in (("q", H), ("k", K), ("v", K)) for head in range(n)
              for d in range(D)]  # fmt: skip
    np.testing.assert_array_equal(by_kind(fused, config), fused[..., wanted])
    np.testing.assert_array_equal(by_head(by_kind(fused, config), config), fused)


# Whatever transformers writes ---------------------------------------------------------------------


@functools.cache
def defaults(model_type):
    """What transformers writes for an architecture when nothing is said."""
    transformers = pytest.importorskip("transformers", reason="needs the parity extra: transformers")
    return json.loads(json.dumps(transformers.AutoConfig.for_model(model_type).to_dict(), default=str))


def as_they_read(raw):
    """The config.json that transformers writes of one it has read; None where it refuses."""
    transformers = pytest.importorskip("transformers", reason="needs the parity extra: transformers")
    raw = json.loads(json.dumps(raw))
    try:
        return json.loads(json.dumps(transformers.AutoConfig.for_model(**raw).to_dict(), default=str))
    except Exception:  # its checks raise errors of many kinds
        return None


def quietly(raw):
    """`config_of` but for the tokens that begin and end a text, which have no defaults here; None where it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return replace(config_of(raw), bos=None, eos=())
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 400
            return None


SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd"), 48),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head"), 6),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer"), 2),
}
VALUES = {
    "num_kv_heads": [None, 1, 2, 3, 6], "num_key_value_heads": [None, 1, 2, 4], "rotary_pct": [0.5, 0.25, 1.0, 0.3],
    "rotary_emb_base": [100, 1e4], "rope_theta": [100, 1e4], "multi_query": [True, False, None],
    "new_decoder_architecture": [True, False, None], "parallel_attn": [True, False, None], "alibi": [False, None, True],
    "num_ln_in_parallel_attn": [None, 1, 2, 3], "ffn_hidden_size": [None, 27], "bias": [True, False, None],
    "activation": ["gelu", "gelu_new", "silu"], "hidden_act": ["gelu", "gelu_fast", "silu"],
    "attention_bias": [True, False], "use_parallel_residual": [True, False], "tie_word_embeddings": [True, False],
    "use_sliding_window": [True, False], "sliding_window": [None, 8, 50000], "max_window_layers": [0, 1, 28],
    "layer_types": [None, ["full_attention"] * 2, ["full_attention", "sliding_attention"]], "head_dim": [8, 10],
    "rope_parameters": [None, {"rope_theta": 50.0}, {"rope_type": "linear", "factor": 2.0, "rope_theta": 9.0},
                        {"partial_rotary_factor": 0.5, "rope_theta": 9.0, "rope_type": "default"}],
    "rope_scaling": [None, {"type": "linear", "factor": 2.0}, {"rope_type": "default"}],
    "partial_rotary_factor": [0.5, 1.0], "expansion_ratio": [4, 2], "learned_pos_emb": [True, False],
    "attn_config": [None, {"alibi": True}, {"clip_qkv": 0.0, "alibi_bias_max": 8}], "max_seq_len": [9, 2048],
    "no_bias": [True, False], "max_position_embeddings": [64, 2048],
}  # fmt: skip


@pytest.mark.parametrize("model_type", OURS)
@examples(300, least=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_config_means_what_it_means_to_transformers(model_type, data):
    """Drawn keys, absent, null or at odds with each other: read as transformers reads them, or refused."""
    whole = defaults(model_type)
    keys = [key for key in VALUES if key in whole or key.startswith(("rope", "rotary", "partial"))]
    said = {key: st.sampled_from(VALUES[key]) for key in keys}
    raw = OURS[model_type] | data.draw(st.fixed_dictionaries({}, optional=said))
    theirs, ours = as_they_read(raw), quietly(raw)
    if ours is not None and theirs is not None:
        assert ours == quietly(theirs)


RELATIVES = """apertus arcee bitnet bloom codegen cohere cohere2 dbrx deepseek_v3 diffllama ernie4_5 exaone4 falcon_h1
    gemma gemma2 gemma3_text glm glm4 gpt_bigcode gpt_neo gpt_neox_japanese gpt_oss gptj granite granitemoe helium
    jetmoe mixtral nemotron olmo olmo2 olmo3 olmoe opt persimmon phi phi3 phimoe qwen2_moe qwen3_moe seed_oss smollm3
    stablelm starcoder2""".split()


@pytest.mark.slow
@examples(1000, least=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_relative_is_refused(data):
    """By its name; and under another's it is refused, or means what it means to transformers."""
    name, label = data.draw(st.sampled_from(RELATIVES)), data.draw(st.sampled_from(sorted(OURS)))
    raw = dict(defaults(name))
    raw |= {key: data.draw(st.sampled_from([n, 2 * n])) for key, n in SIZES.items() if key in raw}
    raw |= {key: data.draw(st.sampled_from(VALUES[key])) for key in sorted(VALUES.keys() & raw.keys())}
    with pytest.raises(ValueError, match=f"^model_type '{name}' is not one of ") as caught:
        config_of(raw)
    assert "\n" not in str(caught.value)
    raw["model_type"] = label
    theirs, ours = as_they_read(raw), quietly(raw)
    if ours is not None and theirs is not None:
        assert ours == quietly(theirs)
