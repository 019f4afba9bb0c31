"""Hugging Face's folders and hub: `folder` (in and out), `checkpoint` (tensors), `llama` and `gpt2` (names), `hub`.

llama.cpp's GGUF files: `gguf_file`, `gguf_model`, `gguf_tokenizer`; `package` finds one that pip put there. Whatever is
read lies in memory as `layout` has it.
"""
