"""What the arrays of a model are called: ours in the first column, then Hugging Face's of each family, and GGUF's.

A name ends in ".weight"; that of a bias is `arrays.other_name`.
"""

OUTER = """
ours      llama         gpt2     gpt_neox          falcon           mpt      GGUF
embed     embed_tokens  wte      embed_in          word_embeddings  wte      token_embd
position  -             wpe      -                 -                -        position_embd
norm      norm          ln_f     final_layer_norm  ln_f             norm_f   output_norm
head      lm_head       lm_head  embed_out         lm_head          lm_head  output
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


def column(table, name, prefix=""):
    """Return our names and those of a column, which begin with a prefix, except the output matrix.

    >>> column(OUTER, "gpt_neox", "gpt_neox.")["head"], column(SKELETON, "GGUF")["w_qkv"]
    ('embed_out.weight', 'attn_qkv.weight')
    """
    (_, *header), *rows = (line.split() for line in table.strip().splitlines())
    theirs = {ours: names[header.index(name)] for ours, *names in rows}
    theirs = {ours: each if ours == "head" else prefix + each for ours, each in theirs.items() if each != "-"}
    return {ours: each if ours == "sink_logits" else f"{each}.weight" for ours, each in theirs.items()}
