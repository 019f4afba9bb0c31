"""The learned arrays of a model by name: those that are read, saved, counted and trained, and their names in files.

``"embed"`` belongs to the model as a whole, ``"0.wq"`` to its layer 0. A tied output matrix has no separate name: it is
the embedding. The arrays that differ are in each architecture's `outer_shapes` and `layer_shapes`.
"""

import re
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from .. import gpt2, llama
from ..families import falcon, gpt_neox, mpt
from ..positions import interleaved_to_split_half, split_half_to_interleaved

ARCHITECTURES: dict[str, Any] = {"llama": llama, "mistral": llama, "qwen2": llama, "qwen3": llama}
ARCHITECTURES |= {"gpt2": gpt2, "gpt_neox": gpt_neox, "mpt": mpt, "falcon": falcon}


def shapes(config):
    """Map the name of every learned array to its shape."""
    arch, V, C = ARCHITECTURES[config.model_type], config.vocab_size, config.d_model
    outer = {"embed": (V, C)} | ({} if config.tied else {"head": (C, V)}) | arch.outer_shapes(config)
    layer = arch.layer_shapes(config)
    return outer | {f"{i}.{name}": shape for i in range(config.n_layers) for name, shape in layer.items()}


def from_arrays(config, arrays):
    """Make `Weights` from the arrays that `shapes` lists."""
    arch, L = ARCHITECTURES[config.model_type], config.n_layers
    names, outer = arch.layer_shapes(config), {name: arrays[name] for name in ("embed", *arch.outer_shapes(config))}
    layers = [_made(arch.LayerWeights, {name: arrays[f"{i}.{name}"] for name in names}) for i in range(L)]
    head = arrays["embed"].T if config.tied else arrays["head"]
    return _made(arch.Weights, outer | {"layers": layers, "head": head})


def _made(weights, given):
    """Make `Weights` or `LayerWeights`; an array that is not given is None."""
    return weights(**dict.fromkeys(field.name for field in fields(weights)) | given)


def to_arrays(config, weights):
    """Undo `from_arrays`."""
    return {name: array_of(weights, name) for name in shapes(config)}


def by_kind(fused, config):  # (..., (H + 2 K) D) -> (..., (H + 2 K) D)
    """Reorder fused columns that are stored head by head: a key's queries, the key, its value, and so on.

    >>> from minisink.families.falcon import Config
    >>> sizes = {"d_model": 6, "n_layers": 1, "n_heads": 6, "n_kv_heads": 2, "d_ff": 9, "vocab_size": 5}
    >>> by_kind(np.array([*"abcKVdefLW"]), Config(**sizes)).tolist()
    ['a', 'b', 'c', 'd', 'e', 'f', 'K', 'L', 'V', 'W']
    """
    outer, K = fused.shape[:-1], config.n_kv_heads
    heads = fused.reshape(*outer, K, config.n_heads // K + 2, config.head_dim)
    kinds = heads[..., :-2, :], heads[..., -2, :], heads[..., -1, :]
    return np.concatenate([kind.reshape(*outer, -1) for kind in kinds], axis=-1)


def by_head(joined, config):  # (..., (H + 2 K) D) -> (..., (H + 2 K) D)
    """Undo `by_kind`."""
    order = by_kind(np.arange(joined.shape[-1]), config)
    return joined[..., np.argsort(order)]


def array_of(weights, name):
    """Look up one array by name; None if the model lacks it."""
    layer, _, field = name.rpartition(".")
    return getattr(weights.layers[int(layer)] if layer else weights, field)


# Our names, Hugging Face's by family, and GGUF's. Each ends in ".weight"; a bias, without its own row, in ".bias".
OUTER = """
ours      llama         gpt2           gpt_neox          falcon           mpt                 GGUF
layers    model.layers  transformer.h  gpt_neox.layers   transformer.h    transformer.blocks  blk
embed     embed_tokens  wte            embed_in          word_embeddings  wte                 token_embd
position  -             wpe            -                 -                -                   position_embd
norm      norm          ln_f           final_layer_norm  ln_f             norm_f              output_norm
head      lm_head       lm_head        embed_out         lm_head          lm_head             output
"""
# Within a layer: Llama's names, then those of GPT-2's skeleton
LLAMA = """
ours         llama                     GGUF
attn_norm    input_layernorm           attn_norm
wq           self_attn.q_proj          attn_q
wk           self_attn.k_proj          attn_k
wv           self_attn.v_proj          attn_v
wo           self_attn.o_proj          attn_output
mlp_norm     post_attention_layernorm  ffn_norm
w_gate       mlp.gate_proj             ffn_gate
w_up         mlp.up_proj               ffn_up
w_down       mlp.down_proj             ffn_down
q_norm       self_attn.q_norm          attn_q_norm
k_norm       self_attn.k_norm          attn_k_norm
sink_logits  self_attn.sinks           -
"""
SKELETON = """
ours         gpt2         gpt_neox                   falcon                          mpt            GGUF
ln1          ln_1         input_layernorm            input_layernorm                 norm_1         attn_norm
w_qkv        attn.c_attn  attention.query_key_value  self_attention.query_key_value  attn.Wqkv      attn_qkv
wo           attn.c_proj  attention.dense            self_attention.dense            attn.out_proj  attn_output
ln2          ln_2         post_attention_layernorm   post_attention_layernorm        norm_2         ffn_norm
w_up         mlp.c_fc     mlp.dense_h_to_4h          mlp.dense_h_to_4h               ffn.up_proj    ffn_up
w_down       mlp.c_proj   mlp.dense_4h_to_h          mlp.dense_4h_to_h               ffn.down_proj  ffn_down
sink_logits  attn.sinks   attention.sinks            self_attention.sinks            attn.sinks     -
"""
# Falcon's norms, if attention and MLP run side by side and each has its own
TWO_NORMS = {"falcon": {"ln1": "ln_attn", "ln2": "ln_mlp"}, "GGUF": {"ln1": "attn_norm_2", "ln2": "attn_norm"}}
# Extra tensors that other tools write (without the prefix): masks, and tables that a forward pass computes itself
HARMLESS = {
    "llama": r"(layers\.\d+\.self_attn\.)?rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)|position_ids",
    "gpt2": r"h\.\d+\.attn\.(bias|masked_bias)",
    "gpt_neox": r"layers\.\d+\.attention\.(bias|masked_bias)"
    r"|(layers\.\d+\.attention\.)?rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)",
    "falcon": r"(h\.\d+\.self_attention\.)?(rotary_emb|maybe_rotary)\.(inv_freq|original_inv_freq)"
    r"|h\.\d+\.self_attention\.(rotary_emb|maybe_rotary)\.(cos_cached|sin_cached)",
    "mpt": "attn_bias",
}


class Tensor(NamedTuple):
    """How a file holds one of our arrays."""

    name: str
    shape: tuple[int, ...]
    is_transposed: bool  # a matrix stored as (out, in)


def family_of(config):
    """Return the name of the column with Hugging Face's names for a model."""
    return "llama" if isinstance(config, llama.Config) else config.model_type


def tensors_of(config, column=None):
    """Map our name for each array of a model to how it is stored, in Hugging Face's files or in "GGUF" files.

    Matrices are (out, in), except those whose rows are looked up, and Hugging Face's Conv1D, which GPT-2 uses.

    >>> from minisink.gpt2 import Config
    >>> tensors = tensors_of(Config(d_model=8, n_layers=3, n_heads=2, d_ff=9, vocab_size=7, max_positions=5))
    >>> tensors["2.w_up"], tensors["norm_b"].name
    (Tensor(name='transformer.h.2.mlp.c_fc.weight', shape=(8, 9), is_transposed=False), 'transformer.ln_f.bias')
    """
    column = column or family_of(config)
    theirs = _column(OUTER, column) | _column(LLAMA if isinstance(config, llama.Config) else SKELETON, column)
    if getattr(config, "n_norms", 1) == 2 and config.parallel:
        theirs |= TWO_NORMS[column]
    tensors = {}
    for ours, shape in shapes(config).items():
        is_as_ours = ours in ("embed", "position") or (column == "gpt2" and ours != "head")
        is_transposed = len(shape) == 2 and not is_as_ours
        tensors[ours] = Tensor(_name(theirs, ours), shape[::-1] if is_transposed else shape, is_transposed)
    return tensors


def tensor_shapes(config, column=None):
    """Map the name of every tensor a checkpoint must hold to its shape there."""
    return {tensor.name: tensor.shape for tensor in tensors_of(config, column).values()}


def from_tensors(config, read, column=None):
    """Yield each array by our name, matrices as (in, out) views; ``read(name)`` is called for one tensor at a time."""
    for ours, tensor in tensors_of(config, column).items():
        array = read(tensor.name)
        yield ours, _reordered(array.T if tensor.is_transposed else array, ours, config, column)


def to_tensors(config, arrays, column=None):
    """Undo `from_tensors`, with dicts."""
    tensors, stored = tensors_of(config, column), {}
    for ours, array in arrays.items():
        array = _reordered(array, ours, config, column, back=True)
        stored[tensors[ours].name] = array.T if tensors[ours].is_transposed else array
    return stored


def _reordered(array, name, config, column, back=False):
    """Reorder the last axis of an array from a file's order to ours, or back; return most arrays unchanged.

    llama.cpp rotates neighbours, channels 2 j and 2 j + 1, and its files store the heads of Llama's queries and keys in
    that order; minisink and Hugging Face rotate j and j + D/2.
    """
    field, is_gguf = name.rpartition(".")[2], column == "GGUF"
    if is_gguf and config.model_type == "llama" and field in ("wq", "bq", "wk", "bk"):
        heads = array.reshape(*array.shape[:-1], -1, config.head_dim)
        return (split_half_to_interleaved if back else interleaved_to_split_half)(heads).reshape(array.shape)
    if not is_gguf and config.model_type in ("gpt_neox", "falcon") and field.endswith("_qkv"):
        return (by_head if back else by_kind)(array, config)
    return array


def _name(theirs, ours):
    """Translate the name of an array; outside the layers, all names except the output matrix's have the prefix."""
    layer, _, field = ours.rpartition(".")
    row = field if field in theirs else re.sub("^b", "w", field.removesuffix("_b"))  # a bias has no row
    name = theirs[row] + ("" if field == "sink_logits" else ".weight" if row == field else ".bias")
    if layer:
        return f"{theirs['layers']}.{layer}.{name}"
    prefix, dot, _ = theirs["layers"].rpartition(".")
    return name if field == "head" else prefix + dot + name


def _column(table, name):
    """Map each word in the first column to the one in the named column."""
    (_, *header), *rows = (line.split() for line in table.strip().splitlines())
    return {ours: words[header.index(name)] for ours, *words in rows if words[header.index(name)] != "-"}
