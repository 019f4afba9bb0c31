"""Hugging Face's folders and hub: `folder` (in and out), `checkpoint` (tensors), `llama` and `gpt2` (names), `hub`.

And llama.cpp's GGUF files: `gguf_file` (bytes), `gguf_model` (names), `gguf_tokenizer`; `package` finds an installed one.
"""
