"""Hugging Face's folders and hub: `folder` (in and out), `checkpoint` (tensors), `llama` and `gpt2` (names), `hub`."""
