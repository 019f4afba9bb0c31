"""Hugging Face's folders and hub: `folder` (in and out), `checkpoint` (tensors), `hub`; the keys of each family in
`llama`, `gpt2`, `gpt_neox`, `mpt` and `falcon`, what all say of rotary positions in `rope`; every array by all `names`.

llama.cpp's GGUF files: `gguf_file`, `gguf_model`, `gguf_tokenizer`. `find` resolves what `load` is asked for to one of
these, through `shipped`, or through `package` for a model installed by pip. `arrays` lists the learned arrays by name,
for all architectures; `layout` puts them into memory.
"""
