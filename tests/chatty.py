"""A tiny model with random weights that could chat: every byte is a token, and ChatML's markers are the last two."""

import tiny
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from minisink.model import Model

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
START, END = 256, 257


def tokenizer(markers=("<|im_start|>", "<|im_end|>"), *, special=True):
    """Bytes as tokens; markers that are not special are found in anybody's words."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken(marker, special=special, normalized=False) for marker in markers])
    made.encode_special_tokens = True
    return made


def model(template=CHATML, markers=("<|im_start|>", "<|im_end|>"), dtype="float32", seed=0, eos=(END,)):
    """A `Model`."""
    made = tiny.make(vocab_size=258, eos=eos, dtype=dtype, seed=seed)
    return Model(made.config, made.weights, tokenizer(markers), name="chatty", chat_template=template)
