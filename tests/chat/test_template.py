"""Chat templates: the pieces make up what a whole conversation renders to, and nobody can forge a turn."""

import importlib.util
import io
import json
import re
import sys

import chatty
import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from tokenizers import AddedToken

import minisink
from minisink.chat import render
from minisink.chat import template as templates
from minisink.chat.conversation import Conversation
from minisink.chat.template import TemplateError, chatml, template_of

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
    (rendered,) = chatml([([{**m, "content": f"\0{i}\0"} for i, m in enumerate(messages)], begin)])
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
    template, ids = PIECES[system is not None], []
    messages = [{"role": "system", "content": system}] * (system is not None)
    for i, words in enumerate(said):
        messages.append({"role": "assistant" if i % 2 else "user", "content": words})
        if i % 2:
            ids += template.fill(template.before, template.reply, assistant=words)
        else:
            ids += template.fill(
                *((template.end, template.turn) if i else (template.first,)), user=words, system=system
            )
        whole = ids + (template.fill(template.end) if i % 2 else [])
        assert whole == by_the_book(MODEL, messages, begin=i % 2 == 0)


PIECES = {told: template_of(MODEL, system="told" if told else None) for told in (False, True)}


@given(WORDS, st.sampled_from(["<|im_end|>", "<|im_start|>assistant\n", "<|im_end|>\n<|im_start|>user\n"]), WORDS)
def test_nobody_can_forge_a_turn(left, marker, right):
    """However a marker is spelled out by a person, it is letters: no more special ids than the template has."""
    for words in (left + marker + right, marker * 3):
        ids = PIECES[False].fill(PIECES[False].first, user=words)
        plain = PIECES[False].fill(PIECES[False].first, user="x")
        assert [i for i in ids if i >= chatty.START] == [i for i in plain if i >= chatty.START]
        assert words in MODEL.tokenizer.decode(ids, skip_special_tokens=True)


def test_jinja_and_chatml_agree(monkeypatch):
    """The model's own template by jinja2, and ChatML without jinja2, which says so."""
    own = template_of(MODEL, system="told")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jinja2" else find_spec(name))
    with pytest.warns(UserWarning, match=r"pip install 'minisink\[chat\]'"):
        plain = template_of(MODEL, system="told")
    for name in ("system", "first", "turn", "before", "end"):
        assert getattr(own, name) == getattr(plain, name)
    bare = chatty.model(markers=())
    with pytest.raises(TemplateError, match=r"chatty: its chat template needs jinja2: pip install 'minisink\[chat\]'"):
        template_of(bare)


def test_other_ways_to_write_a_conversation():
    """The system message within the first turn: no piece by itself; a space that stands before an answer."""
    template = template_of(chatty.model(LLAMA2), system="told")
    assert template.system is None
    assert template.first == [256, "[INST] <<SYS>>", ("system",), "<</SYS>>", ("user",), " [/INST]"]
    assert (template.before, template.end) == ([" "], [" ", 257])
    assert template.turn == [256, "[INST] ", ("user",), " [/INST]"]


def test_a_name_is_not_what_begins_or_ends_a_text():
    """bos_token is written where no text begins with it; eos_token need not be the first of the config."""
    text = "{{ bos_token }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}{{ pad_token }}"
    model = chatty.model(text, eos=(5, chatty.END))
    assert model.config.bos is None
    assert template_of(model).end == [model.tokenizer.id_to_token(5)]  # no names: those of the config
    model.special_tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    template = template_of(model)
    assert template.first == [chatty.START, ("user",), chatty.END] and template.end == [chatty.END]
    assert Conversation(model).ends == {5, chatty.END}  # whatever ends a text ends an answer, and is closed by the name


def test_a_template_is_rendered_as_its_makers_expect():
    """Blocks leave no space of their own; loops can break; JSON keeps its letters; and a template can refuse."""
    talk = [({"role": "user", "content": "é"}, {"role": "user", "content": "b"}), True]
    loop = "  {% for m in messages %}\n{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}"
    template = loop + "{{ bos_token }}{{ add_generation_prompt }}{{ strftime_now('%%') }}"
    assert render.render(template, [talk], bos_token="<s>") == ['{"role": "user", "content": "é"}<s>True%']
    template = "{{ tools is none and documents is none }} {{ messages | length | tojson(indent=2) }} "
    template += "{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }} "
    template += "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert render.render(template, [talk]) == ['True 2 {"a":1,"b":"\\u00e9"} éb']
    with pytest.raises(jinja2.TemplateError, match="^only one turn$"):
        render.render("{{ raise_exception('only one turn') }}", [talk])


@pytest.mark.parametrize("template, key", [("{{ messages }}{{ eos_token }}", "rendered"), ("{% if %}", "error")])
def test_the_child_process_answers_in_json(monkeypatch, capsys, template, key):
    """With bounded memory, and without the folder of `render` among what can be imported."""
    resource = pytest.importorskip("resource")
    limits, question = [], {"template": template, "conversations": [[[], False]], "names": {"eos_token": "</s>"}}
    monkeypatch.setattr(resource, "setrlimit", lambda *limit: limits.append(limit))
    monkeypatch.setattr("sys.path", [str(templates.__file__).rpartition("/")[0], "/elsewhere", *sys.path])
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(question)))
    render.main()
    answer = json.loads(capsys.readouterr().out)
    assert key in answer and (key == "error" or answer[key] == ["[]</s>"])
    assert limits == [(resource.RLIMIT_AS, (render.MEMORY, render.MEMORY))] and sys.path[0] == "/elsewhere"


def saying(content):
    """ChatML in which words go through an expression."""
    return chatty.CHATML.replace("m['content'] + '<|im_end|>\n'", "'' }}{{ " + content + " }}{{ '<|im_end|>\n'")


REFUSED = {
    "raises": ("{{ raise_exception('only one turn') }}", "cannot be rendered .*only one turn"),
    "syntax": ("{% for m in messages %}", "cannot be rendered .*TemplateSyntaxError"),
    "class": (chatty.CHATML + "{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot be rendered .*SecurityError"),
    "file": ("{% include '/etc/passwd' %}", "cannot be rendered"),
    "memory": ("{{ 'x' * 10**11 }}", "cannot be rendered .*MemoryError"),
    "range": ("{% for i in range(10**9) %}{% endfor %}", "cannot be rendered .*OverflowError"),
    "once": ("{{ messages[-1]['content'] }}", "rewrites earlier text when message 2 is added"),
    "twice": (
        chatty.CHATML.replace("m['content']", "m['content'] + m['content']"),
        "should write the words of user once",
    ),
    "never": ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "should write the words of user once; it has none"),
    "upper": (chatty.CHATML.replace("m['content']", "m['content'] | upper"), "should write the words"),
    "escape": (saying("m.content | e"), r"changes words, .* it makes '&#34;It"),
    "tojson": (saying("m.content | tojson"), "changes words, or tests what they are: of"),
    "start": (saying("m.content[:5]"), "should write the words of user once; it has none"),
    "asks a number": ("{% if '7' in messages[0].content %}!{% endif %}" + chatty.CHATML, "changes words, .* '!"),
    "lower": (saying("m.content | lower"), "changes words, .* it makes 't"),
    "counts": ("{% for m in messages %}{{ loop.index ~ m['content'] }}{% endfor %}", "does not write every turn alike"),
}


@pytest.mark.parametrize("template, message", REFUSED.values(), ids=REFUSED)
def test_a_template_that_cannot_be_used_is_refused_by_name(template, message):
    """One line, with the model's name in front."""
    with pytest.raises(TemplateError, match=f"^chatty: its chat template {message}"):
        template_of(chatty.model(template))


MORE = {
    "ascii": (saying("m.content | tojson(ensure_ascii=true)"), "should write the words of user once; it has none"),
    "long start": (saying("m.content[:7000]"), "changes words, .* of 'A sentence"),
    "longer start": (saying("m.content[:90000]"), "changes words, .* of 'xxx"),
    "length": (saying("m.content ~ m.content | length"), "changes words, or tests what they are"),
    "a length": (saying("m.content ~ ('!' if m.content | length == 733)"), "changes words, .* it makes '!"),
    "asks a letter": (saying("m.content ~ ('.' if m.content[-1] not in '.!?;')"), "changes words, or tests"),
    "some": (saying("m.content.strip(' .')"), "changes words, or tests what they are: of"),
    "line ends": (saying("m.content.lstrip('\n')"), "changes words, or tests what they are: of"),
    "wraps": (saying("m.content | wordwrap(500)"), "changes words, or tests what they are: of"),
}


@pytest.mark.slow
@pytest.mark.parametrize("template, message", MORE.values(), ids=MORE)
def test_whatever_is_done_to_words_is_found(template, message):
    """By words as long as a number in the template, with each text and letter that stands in it, and of other kinds."""
    test_a_template_that_cannot_be_used_is_refused_by_name(template, message)


ASKED = "/no_think"
ASKS = {
    "a command": (ASKED, "{% if '/no_think' in messages[-1].content | lower %}!{% endif %}" + chatty.CHATML),
    "what is before": (ASKED, saying("(m.content if m.role == 'assistant' else m.content.split('/no_think')[0])")),
    "all else": (
        ASKED,
        saying("(m.content if m.role == 'assistant' else m.content.replace('/no_think', '').lstrip())"),
    ),
    "an end": (ASKED, saying("m.content ~ ('!' if m.role != 'assistant' and not m.content.endswith('/no_think'))")),
    "lines": ("\n\n", saying("(m.content if m.role == 'assistant' else m.content.replace('\n\n', '\n'))")),
}


@pytest.mark.sampled
@pytest.mark.parametrize("text, template", ASKS.values(), ids=ASKS)
def test_words_that_a_template_asks_for_are_refused_and_no_others(text, template):
    """Llama 2's own looks for <<SYS>>, SmolLM3's for /no_think: whoever says nothing of the kind can chat."""
    conversation = Conversation(chatty.model(template), system="told")
    for words in (f"a{text}b", f"Add two {text.title()} numbers"):
        with pytest.raises(TemplateError, match=re.escape(f"the chat template changes words with {text!r}: leave it")):
            conversation.answer(words)
    assert conversation.n_turns == 0
    for words in ("Think", "no think /\n."):
        list(conversation.answer(words, max_new_tokens=1))
    with pytest.raises(TemplateError, match="changes words"):
        Conversation(chatty.model(template), system=f"a {text} b").answer("Hi")


TRIMMED = {  # the ends of a text that the template trims; a text of two messages is trimmed at its own ends
    "as it is": ("m['content']", (), (), ()),
    "trim": ("m['content'] | trim", ("strip",), ("strip",), ("strip",)),
    "strip": ("m['content'].strip()", ("strip",), ("strip",), ("strip",)),
    "left": ("m['content'].lstrip()", ("lstrip",), ("lstrip",), ("lstrip",)),
    "users": ("(m['content'] | trim if m['role'] == 'user' else m['content'])", (), ("strip",), ()),
}


@pytest.mark.parametrize("content, of_system, of_user, of_reply", TRIMMED.values(), ids=TRIMMED)
def test_words_are_trimmed_as_the_template_trims_them(content, of_system, of_user, of_reply):
    """Found by words with blanks at their ends; what is filled in is trimmed likewise."""
    model = chatty.model(chatty.CHATML.replace("m['content']", content))
    template = template_of(model, system="told")
    assert [part for part in template.first if isinstance(part, tuple)] == [("system", *of_system), ("user", *of_user)]
    assert ("user", *of_user) in template.turn and template.reply == [("assistant", *of_reply)]
    assert ("system", *of_system) in template.system
    for words in (" x\n", "\u2003\t a  b \x0b"):
        trimmed = getattr(words, of_user[0])() if of_user else words
        ids = template.fill(template.turn, user=words)
        assert ids == [chatty.START, *map(int, MODEL.encode(f"user\n{trimmed}")), *ids[-len("assistant\n") - 3 :]]


def test_a_template_that_changes_answers_is_warned_about_and_scores_none():
    """Thoughts are left out of earlier answers, whose tokens stay here; the words of a person are not touched."""
    content = "(m['content'].split('</think>')[-1] if m['role'] == 'assistant' else m['content'])"
    model = chatty.model(chatty.CHATML.replace("m['content']", content))
    with pytest.warns(UserWarning, match="its chat template, for past answers, changes words, .* of '</think>"):
        conversation = Conversation(model)
    assert conversation.template.turn == PIECES[False].turn
    with pytest.raises(TemplateError, match="may change a reply, so replies cannot be scored"):
        conversation.score("Hi", "Hello")


def test_a_system_message_of_nothing_is_written_as_the_template_writes_it():
    """A template that leaves out an empty message is refused for it, and for no other."""
    model = chatty.model("{% if messages[0]['content'] %}!{% endif %}" + chatty.CHATML)
    assert template_of(model, system="told").first[0] == "!"
    with pytest.raises(TemplateError, match="changes words, .* of '' it makes"):
        template_of(model, system="")


def test_a_template_without_end_is_stopped(monkeypatch):
    """Nested loops, each within what the sandbox allows."""
    monkeypatch.setattr(templates, "SECONDS", 0.5)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateError, match="chatty: its chat template does not end; stopped after 0.5 seconds"):
        template_of(chatty.model(endless))


def test_who_cannot_chat():
    """No template and no markers; no tokenizer."""
    with pytest.raises(TemplateError, match="novels: has no chat template, so it was not trained to chat; smollm2 was"):
        template_of(minisink.load("novels"))
    silent = chatty.model()
    silent.tokenizer = None
    with pytest.raises(TemplateError, match="chatty: has no tokenizer"):
        template_of(silent)


def test_a_marker_that_is_no_token_of_the_model_is_refused():
    """A name without a token, of which transformers would make a new one; a token beyond the embedding."""
    model = chatty.model("{{ pad_token }}" + chatty.CHATML)
    model.special_tokens = {"pad_token": "[PAD]"}
    with pytest.raises(TemplateError, match=r"writes its pad_token '\[PAD\]', which its tokenizer does not have"):
        template_of(model)
    model.tokenizer.add_special_tokens(["[PAD]"])
    with pytest.raises(TemplateError, match="writes token id 258, but the model's vocab_size is 258"):
        template_of(model)


def test_a_tokenizer_that_looks_past_a_marker_is_refused():
    """A special token that only counts as a word by itself: others cut <|im_start|>user into letters, pieces do not."""
    markers = ("<|im_start|>", "<|im_end|>")
    tokenizer = chatty.tokenizer(())
    tokenizer.add_tokens([AddedToken(marker, special=True, normalized=False, single_word=True) for marker in markers])
    tokenizer.encode_special_tokens = True
    model = minisink.Model(MODEL.config, MODEL.weights, tokenizer, name="chatty", chat_template=chatty.CHATML)
    with pytest.raises(TemplateError, match="is encoded differently as a whole than in pieces"):
        template_of(model)


def test_markers_that_anybody_can_type_are_refused():
    """A file may have them as words of its own kind instead of special tokens; then typing one forges a turn."""
    told = MODEL.tokenizer.encode("<|im_end|>", add_special_tokens=False).ids
    assert len(told) > 1
    typed = chatty.tokenizer(special=False)
    assert typed.encode("<|im_end|>", add_special_tokens=False).ids == [chatty.END]
    loose = minisink.Model(MODEL.config, MODEL.weights, typed, name="loose", chat_template=chatty.CHATML)
    with pytest.raises(TemplateError, match=re.escape("marks turns with '<|im_start|>', which is an ordinary word")):
        template_of(loose)
