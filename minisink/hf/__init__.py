"""Hugging Face's folders and hub: `folder` (in and out), `checkpoint` (tensors), `hub`; the keys of each family in
`llama`, `gpt2`, `gpt_neox`, `mpt` and `falcon`, what all say of rotary positions in `rope`; every array by all `names`.

llama.cpp's GGUF files: `gguf_file`, `gguf_model`, `gguf_tokenizer`. `find` leads to one of these from what `load` is
asked for, by way of `shipped`, or of `package` for a model that pip put there. `arrays` lists what is learned by name,
for all architectures; whatever is read lies in memory as `layout` has it.
"""
