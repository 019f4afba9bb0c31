"""What `load` reads: `find` locates a Hugging Face `folder` or a GGUF file, with config, weights and tokenizer.

Each family's config keys are in `llama`, `gpt2`, `gpt_neox`, `mpt` or `falcon`; the names of all learned arrays, ours
and those in both formats, are in `arrays`.
"""
