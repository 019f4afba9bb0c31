"""Hugging Face's folders and hub: `folder` (in and out), `checkpoint` (tensors), `llama` and `gpt2` (names), `hub`.

llama.cpp's GGUF files: `gguf_file`, `gguf_model`, `gguf_tokenizer`. `find` leads to one of these from what `load` is
asked for, by way of `shipped`, or of `package` for a model that pip put there. `arrays` lists what is learned by name,
for all architectures; whatever is read lies in memory as `layout` has it.
"""
