"""Write a minisink model as llama2.c's files: its first .bin format, in float32.

llama2.c rotates neighbouring channels of a query or key together, while Hugging Face rotates channels j and j + D/2, so
the rows of those matrices change places. `minisink.hf.gguf_model` writes the files for llama.cpp.
"""

import numpy as np

from minisink.hf.folder import to_tensors


def in_pairs(w, head_dim):
    """Put rows j and j + D/2 of every head of an (out, in) matrix next to each other.

    Examples
    --------
    >>> in_pairs(np.array([[0], [2], [1], [3]]), 4).ravel().tolist()
    [0, 1, 2, 3]
    """
    return w.reshape(-1, 2, head_dim // 2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


def write_llama2c(model, folder):
    """Write ``model.bin`` and ``tokenizer.bin`` for llama2.c; token i is its number and a space."""
    config = model.config
    V, L, P, D = config.vocab_size, config.n_layers, config.max_positions, config.head_dim
    tensors = to_tensors(config, model.arrays())

    def of_layers(name):
        arrays = [tensors[f"model.layers.{i}.{name}.weight"] for i in range(L)]
        return [in_pairs(w, D) for w in arrays] if name.endswith(("q_proj", "k_proj")) else arrays

    order = ["input_layernorm", *(f"self_attn.{x}_proj" for x in "qkvo"), "post_attention_layernorm"]
    order += [f"mlp.{x}_proj" for x in ("gate", "down", "up")]
    with open(folder / "model.bin", "wb") as file:
        header = config.d_model, config.d_ff, L, config.n_heads, config.n_kv_heads, V if config.tied else -V, P
        np.array(header, np.int32).tofile(file)
        tensors["model.embed_tokens.weight"].tofile(file)
        for name in order:
            for array in of_layers(name):
                array.tofile(file)
        tensors["model.norm.weight"].tofile(file)
        np.zeros(P * D, np.float32).tofile(file)  # angles that it used to read and now computes
        if not config.tied:
            tensors["lm_head.weight"].tofile(file)
    with open(folder / "tokenizer.bin", "wb") as file:
        words = [f"{token} ".encode() for token in range(V)]
        np.array([max(map(len, words))], np.int32).tofile(file)
        for word in words:
            np.zeros(1, np.float32).tofile(file)  # its score
            np.array([len(word)], np.int32).tofile(file)
            file.write(word)
