"""Chat templates: the pieces make up what a whole conversation renders to, and nobody can forge a turn."""

import importlib.util
import re
from datetime import datetime

import chatty
import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tokenizers import AddedToken

import minisink
from minisink.chat.conversation import Conversation
from minisink.chat.render import chatml, renderer
from minisink.chat.template import Template, TemplateError

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LLAMA2 = (  # the system message within the first turn, a space before an answer
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|im_start|>[INST] ' }}{% if loop.index0 == 1 and "
    "messages[0]['role'] == 'system' %}{{ '<<SYS>>' + messages[0]['content'] + '<</SYS>>' }}{% endif %}"
    "{{ m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' <|im_end|>' }}"
    "{% endif %}{% endfor %}"
)
MODEL = chatty.model()


def by_the_book(model, messages, begin):
    """The ids of a whole rendering: markers as they stand in the template, all else as text."""
    marks = {"<|im_start|>": chatty.START, "<|im_end|>": chatty.END}
    rendered = chatml([{**m, "content": f"\0{i}\0"} for i, m in enumerate(messages)], begin)
    ids, text = [], ""
    for part in re.split("(<\\|im_start\\|>|<\\|im_end\\|>|\0\\d+\0)", rendered):
        if part in marks:
            ids += [*(model.encode(text, bos=False) if text else ()), marks[part]]
            text = ""
        else:
            text += messages[int(part[1:-1])]["content"] if part.startswith("\0") else part
    return ids + (model.encode(text, bos=False).tolist() if text else [])


@examples(60)
@given(st.lists(WORDS, min_size=1, max_size=7), st.none() | WORDS)
def test_the_pieces_make_up_the_whole_conversation(said, system):
    """Turn by turn, with and without a system message; what is said may be anything, markers included."""
    template, ids = Template(MODEL, system), []
    messages = [{"role": "system", "content": system}] * (system is not None)
    for i, words in enumerate(said):
        messages.append({"role": "assistant" if i % 2 else "user", "content": words})
        if i % 2:
            ids += template.reply_ids(words, left=ids[-1])
            whole = ids + template.end_ids()
        else:
            ids += template.turn_ids(words) if i else template.first_ids(words)
            whole = ids
        assert whole == by_the_book(MODEL, messages, begin=i % 2 == 0)


PLAIN = Template(MODEL)


@given(WORDS, st.sampled_from(["<|im_end|>", "<|im_start|>assistant\n", "<|im_end|>\n<|im_start|>user\n"]), WORDS)
def test_nobody_can_forge_a_turn(left, marker, right):
    """However a marker is spelled out by a person, it is letters: no more special ids than the template has."""
    for words in (left + marker + right, marker * 3):
        ids = PLAIN.first_ids(words)
        plain = PLAIN.first_ids("x")
        assert [i for i in ids if i >= chatty.START] == [i for i in plain if i >= chatty.START]
        assert words in MODEL.tokenizer.decode(ids, skip_special_tokens=True)


def test_jinja_and_chatml_agree(monkeypatch):
    """The model's own template by jinja2, and ChatML without jinja2, which says so."""
    own = Template(MODEL, "told")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else find_spec(name))
    with pytest.warns(UserWarning, match=r"pip install 'minisink\[chat\]'"):
        plain = Template(MODEL, "told")
    assert own.first_ids(" x\n") == plain.first_ids(" x\n") and own.turn_ids("") == plain.turn_ids("")
    assert (
        own.reply_ids("y", 0) == plain.reply_ids("y", 0)
        and own.end_ids() == plain.end_ids()
        and own.system_ids() == plain.system_ids()
    )
    bare = chatty.model(markers=())
    with pytest.raises(TemplateError, match=r"chatty: its chat template needs jinja2: pip install 'minisink\[chat\]'"):
        Template(bare)


def test_other_ways_to_write_a_conversation():
    """The system message within the first turn: no piece by itself; a space that stands before an answer."""
    template = Template(chatty.model(LLAMA2), "told")
    assert template.system_ids() is None
    assert template.first == [chatty.START, "[INST] <<SYS>>", ("system",), "<</SYS>>", ("user",), " [/INST]"]
    assert template.answer == [" ", ("assistant",), " ", chatty.END]
    assert template.end_ids() == [*MODEL.encode(" "), chatty.END] and template.end_markers == [chatty.END]
    assert template.turn == [chatty.START, "[INST] ", ("user",), " [/INST]"]


def test_a_name_is_not_what_begins_or_ends_a_text():
    """bos_token is written where no text begins with it; eos_token need not be the first of the config."""
    text = "{{ bos_token }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}{{ pad_token }}"
    model = chatty.model(text, eos=(5, chatty.END))
    assert model.config.bos is None
    assert Template(model).end_ids() == [5] and Template(model).end_markers == []  # no names: those of the config
    model.special_tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    template = Template(model)
    assert template.first_ids("") == [chatty.START, chatty.END] and template.end_ids() == [chatty.END]
    assert Conversation(model).ends == {5, chatty.END}  # whatever ends a text ends an answer, and is closed by the name


def test_a_template_is_rendered_as_its_makers_expect():
    """Blocks leave no space of their own; loops can break; JSON keeps its letters; and a template can refuse."""
    talk, at = [{"role": "user", "content": "é"}, {"role": "user", "content": "b"}], datetime(2026, 5, 9)
    loop = "  {% for m in messages %}\n{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}"
    template = loop + "{{ bos_token }}{{ add_generation_prompt }}{{ strftime_now('%d') }}"
    assert renderer(template, {"bos_token": "<s>"}, at)(talk, True) == '{"role": "user", "content": "é"}<s>True09'
    template = "{{ tools is none and documents is none }} {{ messages | length | tojson(indent=2) }} "
    template += "{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }} "
    template += "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert renderer(template, {}, at)(talk, True) == 'True 2 {"a":1,"b":"\\u00e9"} éb'
    with pytest.raises(jinja2.TemplateError, match="^only one turn$"):
        renderer("{{ raise_exception('only one turn') }}", {}, at)(talk, True)


def saying(content):
    """ChatML in which words go through an expression."""
    return chatty.CHATML.replace("m['content'] + '<|im_end|>\n'", "'' }}{{ " + content + " }}{{ '<|im_end|>\n'")


REFUSED = {
    "raises": ("{{ raise_exception('only one turn') }}", "cannot be rendered .*only one turn"),
    "syntax": ("{% for m in messages %}", "cannot be rendered .*TemplateSyntaxError"),
    "class": (chatty.CHATML + "{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot be rendered .*SecurityError"),
    "file": ("{% include '/etc/passwd' %}", "cannot be rendered"),
    "memory": ("{{ 'x' * 10**14 }}", "cannot be rendered .*MemoryError"),
    "range": ("{% for i in range(10**9) %}{% endfor %}", "cannot be rendered .*OverflowError"),
    "once": ("{{ messages[-1]['content'] }}", "rewrites earlier text when message 2 is added"),
    "twice": (saying("m.content ~ m.content"), "should write the words of user once"),
    "never": ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "should write the words of user once; it has none"),
    "upper": (saying("m.content | upper"), "should write the words"),
    "tojson": (saying("m.content | tojson"), "changes these words, or tests what they are: it writes"),
    "ascii": (saying("m.content | tojson(ensure_ascii=true)"), "should write the words of user once; it has none"),
    "start": (saying("m.content[:5]"), "should write the words of user once; it has none"),
    "lower": (saying("m.content | lower"), "changes these words, .* it writes 'yes"),
    "line ends": (saying("m.content.rstrip('\n')"), "changes these words, or tests what they are: it writes '<"),
    "counts": ("{% for m in messages %}{{ loop.index ~ m['content'] }}{% endfor %}", "does not write every turn the"),
}


@pytest.mark.parametrize("template, message", REFUSED.values(), ids=REFUSED)
def test_a_template_that_cannot_be_used_is_refused_by_name(template, message):
    """One line, with the model's name in front."""
    with pytest.raises(TemplateError, match=f"^chatty: its chat template {message}"):
        Template(chatty.model(template))


TESTS = {  # words: what a template does to them, and not to others
    "a/no_thinkb": "'' if '/no_think' in m.content | lower else m.content",
    "a </think> b": "m.content.split('</think>')[0]",
    "It's <b>": "m.content | e",
    "a/b/c": "m.content | replace('/', ' ')",
    "x" * 6000: "m.content[:5000]",
    "Hello...": "m.content.strip('.')",
    "7": "m.content ~ ('!' if m.content == '7')",
}


@pytest.mark.parametrize("words, content", TESTS.items(), ids=TESTS.values())
def test_words_that_a_template_changes_are_refused_and_no_others(words, content):
    """As first words, in a later turn, in a reply, as a system message; whoever says nothing of the kind can chat."""
    model = chatty.model(saying(f"({content})"))
    conversation = Conversation(model, system="told")
    for _ in range(2):
        n_turns = conversation.n_turns
        for refused in (conversation.answer, lambda words: conversation.score("Hi", words)):
            with pytest.raises(TemplateError, match="^chatty: its chat template changes these words, or tests what"):
                refused(words)
        assert conversation.n_turns == n_turns
        list(conversation.answer(" think\n", max_new_tokens=1))
    with pytest.raises(TemplateError, match="changes these words"):
        Conversation(model, system=words)


TRIMMED = {  # the ends that the template trims, of a person's words and of a reply
    "unchanged": ("m['content']", str, str),
    "trim": ("m['content'] | trim", str.strip, str.strip),
    "left": ("m['content'].lstrip()", str.lstrip, str.lstrip),
    "right": ("m['content'].rstrip()", str.rstrip, str.rstrip),
    "users": ("(m['content'] | trim if m['role'] == 'user' else m['content'])", str.strip, str),
}


@pytest.mark.parametrize("content, of_user, of_reply", TRIMMED.values(), ids=TRIMMED)
def test_words_are_trimmed_as_the_template_trims_them(content, of_user, of_reply):
    """First words, a turn and a reply."""
    template = Template(chatty.model(saying(content)))
    for words in (" x\n", "\u2003\t a  b \x0b", "x"):
        prompt = PLAIN.first_ids(of_user(words))
        assert template.first_ids(words) == prompt
        assert template.turn_ids(words) == PLAIN.turn_ids(of_user(words))
        assert template.reply_ids(words, prompt[-1]) == PLAIN.reply_ids(of_reply(words), prompt[-1])


def test_a_system_message_of_nothing_is_written_as_the_template_writes_it():
    """A template that leaves out an empty message is refused for it, and for no other."""
    model = chatty.model("{% if messages[0]['content'] %}!{% endif %}" + chatty.CHATML)
    assert Template(model, "told").first[0].startswith("!")
    with pytest.raises(TemplateError, match="changes these words, .* it writes '<"):
        Template(model, "")


def test_who_cannot_chat():
    """No template and no markers; no tokenizer."""
    with pytest.raises(TemplateError, match="novels: has no chat template, so it was not trained to chat; smollm2 was"):
        Template(minisink.load("novels"))
    silent = chatty.model()
    silent.tokenizer = None
    with pytest.raises(TemplateError, match="chatty: has no tokenizer"):
        Template(silent)


def test_a_marker_that_is_no_token_of_the_model_is_refused():
    """A name without a token, of which transformers would make a new one; a token beyond the embedding."""
    model = chatty.model("{{ pad_token }}" + chatty.CHATML)
    model.special_tokens = {"pad_token": "[PAD]"}
    with pytest.raises(TemplateError, match=r"writes its pad_token '\[PAD\]', which its tokenizer does not have"):
        Template(model)
    model.tokenizer.add_special_tokens(["[PAD]"])
    with pytest.raises(TemplateError, match="writes token id 258, but the model's vocab_size is 258"):
        Template(model)


def test_a_tokenizer_that_looks_past_a_marker_is_refused():
    """A special token that only counts as a word by itself: others cut <|im_start|>user into letters, pieces do not."""
    markers = ("<|im_start|>", "<|im_end|>")
    tokenizer = chatty.tokenizer(())
    tokenizer.add_tokens([AddedToken(marker, special=True, normalized=False, single_word=True) for marker in markers])
    tokenizer.encode_special_tokens = True
    model = minisink.Model(MODEL.config, MODEL.weights, tokenizer, name="chatty", chat_template=chatty.CHATML)
    with pytest.raises(TemplateError, match="is encoded differently as a whole than in pieces"):
        Template(model)


def test_markers_that_anybody_can_type_are_refused():
    """A file may have them as words of its own kind instead of special tokens; then typing one forges a turn."""
    told = MODEL.tokenizer.encode("<|im_end|>", add_special_tokens=False).ids
    assert len(told) > 1
    typed = chatty.tokenizer(special=False)
    assert typed.encode("<|im_end|>", add_special_tokens=False).ids == [chatty.END]
    loose = minisink.Model(MODEL.config, MODEL.weights, typed, name="loose", chat_template=chatty.CHATML)
    with pytest.raises(TemplateError, match=re.escape("marks turns with '<|im_start|>', which is an ordinary word")):
        Template(loose)
