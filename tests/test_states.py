"""States of another make, changed at random and signed anew: taken up whole, or one line that names the file."""

import copy
import time
import tracemalloc
from functools import partial

import chatty
import pytest
import states
import tiny
from folders import words
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

import minisink
from minisink import llama
from minisink.chat.conversation import Conversation
from minisink.chat.stream import KIND, load_stream, save_stream
from minisink.evaluation.run import STATE, Evaluation
from minisink.fast.blocks import Banded
from minisink.fast.decoder import Decoder
from minisink.fast.ring import RingCache
from minisink.generation import Stream
from minisink.methods import ByLayer, Dense, Recompute, Streaming, Window
from minisink.retrieval import Retrieval
from minisink.snapshot import load_cache, save_cache
from minisink.system import files
from minisink.training import state as training_state
from minisink.training.loop import Training
from minisink.training.recipe import Recipe

MOST_BYTES, MOST_SECONDS = 1 << 24, 5.0  # for a state of a hundred numbers
MODEL, CHATTY = (
    minisink.Model(tiny.make().config, tiny.make().weights, words(17), name="tiny"),
    chatty.model(template=None),
)
BACK = Retrieval(1, 4, n_blocks=2, block=2)
pytestmark = pytest.mark.filterwarnings("ignore:a block of", "ignore:a cache of")

# What is saved, and how it is gone on with --------------------------------------------------------


def cache(path, method, make):
    made = make(method)
    for token in tiny.ids(13).tolist():
        made(token)
    save_cache(made.cache, path)


class Step:
    """A token into a cache of some kind."""

    def __init__(self, cache):
        self.cache = cache
        decoder = Decoder(MODEL, cache.policy, cache=cache) if isinstance(cache, RingCache) else None
        self.step = decoder.step if decoder else lambda token: MODEL.forward([token], cache=cache)

    def __call__(self, token):
        return self.step(token)


def slots(method):
    return Step(minisink.new_cache(MODEL, method))


def blocks(method):
    return Step((method.block_cache or Banded)(3, method))


def ring(method):
    return Step(Decoder(MODEL, method).cache)


def use_cache(path):
    step = Step(load_cache(path))
    for token in (1, 2, 3):
        step(token)


def chat(path, method, **options):
    conversation = Conversation(CHATTY, method, **options)
    for turn in ("abc", "cba"):
        list(conversation.answer(turn, max_new_tokens=9))
    conversation.save(path)


def use_chat(path, method, **options):
    conversation = Conversation(CHATTY, method, **options)
    conversation.load(path)
    list(conversation.answer("b", max_new_tokens=3))
    assert conversation.in_view and conversation.n_seen


def text(path, method):
    stream = Stream(MODEL, method, temperature=1.0, repetition_penalty=1.1)
    list(stream.write(stream.read(tiny.ids(12)), 3))
    save_stream(stream, path)


def use_text(path, method):
    stream = Stream(MODEL, method, temperature=1.0, repetition_penalty=1.1)
    load_stream(stream, path)
    list(stream.write(stream.read([1]), 3))


def evaluation(path, method):
    book, table = path.parent / "book.txt", path.parent / "book.csv"
    book.write_text(" ".join(f"w{i}" for i in tiny.ids(600).tolist()), encoding="utf-8")
    return Evaluation(MODEL, book, method, csv=table, state=path)


def stopped(path, method):
    with pytest.raises(KeyboardInterrupt):
        evaluation(path, method).run(on_progress=lambda _: (_ for _ in ()).throw(KeyboardInterrupt))


def use_evaluation(path, method):
    table = (path.parent / "book.csv").read_bytes()
    try:
        evaluation(path, method).run()
    finally:
        (path.parent / "book.csv").write_bytes(table)


SIZES = {"d_model": 8, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "head_dim": 4, "d_ff": 12, "vocab_size": 17}
CONFIG, RECIPE = (
    llama.Config(**SIZES, max_positions=6, bos=0),
    Recipe(n_steps=3, batch=2, context=6, rate=0.01, warmup=2),
)


def training(path, *, resume=False):
    made = Training(CONFIG, RECIPE, tiny.ids(60), tiny.ids(30), path.parent, resume=resume)
    made.step()
    return made


KINDS = {
    "slots": ("minisink_cache", partial(cache, method=Streaming(2, 4), make=slots), use_cache),
    "by layer": (
        "minisink_cache",
        partial(cache, method=ByLayer([Streaming(1, 3), Dense(), Window(2)]), make=slots),
        use_cache,
    ),
    "retrieval": ("minisink_cache", partial(cache, method=BACK, make=slots), use_cache),
    "blocks": ("minisink_cache", partial(cache, method=Streaming(2, 4), make=blocks), use_cache),
    "retrieval blocks": ("minisink_cache", partial(cache, method=BACK, make=blocks), use_cache),
    "ring": ("minisink_cache", partial(cache, method=Dense(), make=ring), use_cache),
    "retrieval ring": ("minisink_cache", partial(cache, method=BACK, make=ring), use_cache),
}
for name, method in (("streaming", Streaming(2, 9)), ("recompute", Recompute(9)), ("retrieval", BACK)):
    KINDS[f"chat, {name}"] = (KIND, partial(chat, method=method), partial(use_chat, method=method))
    KINDS[f"text, {name}"] = (KIND, partial(text, method=method), partial(use_text, method=method))
PINNED = {"method": Streaming(4, 36), "system": "be kind", "pin_system": True}
KINDS["chat, pinned"] = (KIND, partial(chat, **PINNED), partial(use_chat, **PINNED))
for name, method in (("streaming", Streaming(2, 9)), ("retrieval", BACK)):
    KINDS[f"ppl, {name}"] = (STATE, partial(stopped, method=method), partial(use_evaluation, method=method))
KINDS["training"] = (training_state.STATE, lambda path: training(path).save(), partial(training, resume=True))


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    """Where a state is kept, its kind, its parts, and how it is gone on with."""
    kind, save, use = KINDS[request.param]
    path = tmp_path_factory.mktemp("states") / training_state.FILE
    save(path)
    use(path)
    return path, kind, *states.read(path, kind), use


@examples(40, least=4)
@given(st.data())
def test_a_state_of_another_make_is_taken_up_or_refused_by_name(saved, data):
    """Never another error, never without end, never memory for what the file does not hold."""
    path, kind, about, arrays, use = saved
    states.sign(path, kind, *states.changed(data.draw, about, arrays))
    tracemalloc.start()
    start = time.monotonic()
    try:
        use(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_BYTES and time.monotonic() - start < MOST_SECONDS


def test_a_state_of_another_format_is_refused_by_name(saved, monkeypatch):
    """Whoever wrote it: a version that is to come, or one of before."""
    path, kind, about, arrays, use = saved
    with monkeypatch.context() as patch:
        patch.setattr(files, "FORMAT", "7")
        states.sign(path, kind, about, arrays)
    with pytest.raises(ValueError, match=f"{path}: not .* .a state of format 7, but this version of minisink reads 1"):
        use(path)
    states.sign(path, kind, about, arrays)
    use(path)


def put(*place_and_value):
    """A change of one value of a state."""
    *place, key, value = place_and_value

    def change(about, arrays):
        for step in place:
            about = about[step]
        about[key] = value(about[key]) if callable(value) else value

    return change


def put_array(name, change):
    return lambda about, arrays: arrays.update({name: change(arrays[name])})


REFUSED = {  # what would hang, take gigabytes, or give the numbers of no text
    "ring": [
        put_array("keys", lambda x: x[:, :, :0]),
        put_array("values", lambda x: x[:, :, 1:]),
        put("n_seen", 2**40),
    ],
    "blocks": [put("n_layers", 2**40), put("n_seen", 2), put("method", "window", 5), put("kind", "ring")],
    "slots": [put("n_seen", 12.0), put_array("token_index.1", lambda x: x + 1), put("method", "n_sinks", 3)],
    "retrieval": [put("n_evicted", 5), put("method", "block", 3), put_array("store_token_index.0", lambda x: x[::-1])],
    "retrieval ring": [put("first_blocks", [0, 0]), put("first_blocks", [1, 1, 1]), put("first_blocks", [-1, 0, 0])],
    "text, streaming": [put("pending", [17]), put("window_ids", [1]), put("n_seen", 3), put("seen", 0, -1)],
    "text, recompute": [put("window_ids", [1] * 100_000), put("random", "state", {}), put("pending", [True])],
    "chat, streaming": [
        put("more", "turns", [[1, 0, 10**9]]),
        put("more", "turns", [[2, 0, 5], [1, 5, 9]]),
        put("more", "n_turns", 1),
        put("more", "now", "yesterday"),
        put("more", "now", 0),
        put("readable", "user\n"),
    ],
    "chat, pinned": [put("more", "pinned", 3)],
    "ppl, streaming": [
        put("tally", 3, 0),
        put("tally", 0, 2**40),
        put_array("curve", lambda x: x[:0]),
        put("place", 0, 2**60),
        put("cache", "n_seen", 200),
        put("csv", 0, -1),
        put("done", 1),
    ],
    "training": [put("step", -1), put("random", {}), put("losses", ["x"]), put_array("m", lambda x: x[1:])],
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_state_that_nothing_could_have_left_is_refused(tmp_path, name):
    """One line, and at once; and then the state as it was is gone on with."""
    kind, save, use = KINDS[name]
    path = tmp_path / training_state.FILE
    save(path)
    for change in REFUSED[name]:
        about, arrays = states.read(path, kind)
        original = copy.deepcopy(about), dict(arrays)
        change(about, arrays)
        states.sign(path, kind, about, arrays)
        with pytest.raises(ValueError, match=f"^{path}: ") as refused:
            use(path)
        assert "\n" not in str(refused.value)
        states.sign(path, kind, *original)
    use(path)
