"""What the arrays of a model are called in a file: by Hugging Face in each family, and in GGUF.

Our names are in the first column. Each row names a matrix or a norm, which ends in ".weight"; its bias ends in ".bias".
"""

import re
from typing import NamedTuple

from .. import llama
from .arrays import shapes

OUTER = """
ours      llama         gpt2           gpt_neox          falcon           mpt                 GGUF
layers    model.layers  transformer.h  gpt_neox.layers   transformer.h    transformer.blocks  blk
embed     embed_tokens  wte            embed_in          word_embeddings  wte                 token_embd
position  -             wpe            -                 -                -                   position_embd
norm      norm          ln_f           final_layer_norm  ln_f             norm_f              output_norm
head      lm_head       lm_head        embed_out         lm_head          lm_head             output
"""
# Within a layer: of Llama, and of GPT-2's skeleton
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
# Tensors that other tools write too, without the prefix: masks, and tables that a forward pass makes by itself
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
    """Return the column of Hugging Face's names for a model."""
    return "llama" if isinstance(config, llama.Config) else config.model_type


def tensors_of(config, column=None):
    """Return the `Tensor` of each array of a model by our name, as Hugging Face's files have it, or those of "GGUF".

    Matrices are (out, in), except those whose rows are looked up, and Hugging Face's Conv1D, which GPT-2 is made of.

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


def _name(theirs, ours):
    """Translate the name of an array; outside the layers all have the prefix, except the output matrix."""
    layer, _, field = ours.rpartition(".")
    row = field if field in theirs else re.sub("^b", "w", field.removesuffix("_b"))  # a bias has no row
    name = theirs[row] + ("" if field == "sink_logits" else ".weight" if row == field else ".bias")
    if layer:
        return f"{theirs['layers']}.{layer}.{name}"
    prefix, dot, _ = theirs["layers"].rpartition(".")
    return name if field == "head" else prefix + dot + name


def _column(table, name):
    """Return the words of a column by those of the first."""
    (_, *header), *rows = (line.split() for line in table.strip().splitlines())
    return {ours: words[header.index(name)] for ours, *words in rows if words[header.index(name)] != "-"}
