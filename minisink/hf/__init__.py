"""Hugging Face's folders: `folder` (in and out), `checkpoint` (tensors), `tokenizer`; the keys of each family are in
`llama`, `gpt2`, `gpt_neox`, `mpt` and `falcon`, and what all of them say of rotary positions is in `rope`.

llama.cpp's GGUF files: `gguf_file`, `gguf_model`, `gguf_tokenizer`. `arrays` lists the learned arrays of all
architectures by our names and by those of both formats; `layout` puts them into memory. `find` resolves what `load` is
asked for: a folder, a file, a hub id, a model of `shipped`, or of a `package` installed by pip.
"""
