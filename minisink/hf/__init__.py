"""From what `load` is asked for (`find`) to config, weights and tokenizer: a Hugging Face `folder`, or a GGUF file.

The keys of each family are in `llama`, `gpt2`, `gpt_neox`, `mpt` and `falcon`; the names of all learned arrays, ours
and those of both formats, are in `arrays`.
"""
