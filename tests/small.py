"""Small models with pairwise distinct sizes, so that a swapped axis cannot pass."""

import numpy as np

from minisink import gpt2, llama
from minisink.families import gpt_neox, mpt
from minisink.training.parameters import n_parameters, named_shapes

B, T, V = 3, 5, 11

LLAMA = {"d_model": 7, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 6, "d_ff": 9, "vocab_size": V}
GPT2 = {"d_model": 6, "n_layers": 2, "n_heads": 3, "d_ff": 7, "vocab_size": V, "max_positions": 8}
NEOX = GPT2 | {"d_model": 12, "rotary_dim": 2}
MPT = GPT2 | {"tied": False}

CASES = {
    "llama": (LLAMA, {}),
    "llama tied softmax1": (LLAMA, {"tied": True, "softmax": "softmax1"}),
    "llama biases sink logits": (LLAMA, {"qkv_bias": True, "o_bias": True, "mlp_bias": True, "sink_logit": True}),
    "llama attention only": (LLAMA, {"d_ff": 0}),
    "llama relu": (LLAMA, {"softmax": "relu"}),
    "gpt2 tied": (GPT2, {}),
    "gpt2 softmax1": (GPT2, {"tied": False, "softmax": "softmax1"}),
    "gpt2 sink logits": (GPT2, {"sink_logit": True}),
    "neox": (NEOX, {}),
    "neox in turn": (NEOX, {"parallel": False, "bias": False, "activation": "gelu_new", "softmax": "softmax1"}),
    "mpt": (MPT, {}),
    "mpt sink logits": (MPT, {"sink_logit": True}),
}


def make(case, seed=0, dtype=np.float64):
    """Inference module, config and random weights of a case."""
    sizes, changes = CASES[case]
    inference = {"llama": llama, "gpt2": gpt2, "neox": gpt_neox, "mpt": mpt}[case.split()[0]]
    config = inference.Config(**(sizes | changes))
    random = np.random.default_rng(seed)
    vector = random.standard_normal(n_parameters(named_shapes(config))) * 0.5
    return inference, config, vector.astype(dtype)


def batch(seed):
    """Inputs and targets of shape (B, T)."""
    random = np.random.default_rng([seed, 9])
    return random.integers(0, V, (B, T)), random.integers(0, V, (B, T))
