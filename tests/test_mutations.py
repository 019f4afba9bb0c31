"""Every known wrong turn, taken on purpose: the property it belongs to must turn red.

The numbers are those of the list of wrong turns that other implementations have taken; what follows them are the
mistakes that this code itself invites.
"""

import inspect
import textwrap
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import test_attention
import test_cache
import test_forward
import test_methods
import test_positions
import test_retrieval
import tiny

import minisink
from minisink import gpt2, llama, loss, ops, positions, retrieval
from minisink.cache import KVCache, LayerCache, Policy, keep_all, keep_sinks, keep_window
from minisink.fast.blocks import Banded, Windows

LLAMA, GPT2, IDS = tiny.make(llama), tiny.make(gpt2), tiny.ids(12).tolist()
ONES, CHUNKS = [1] * 12, [2, 3, 2, 5]
TURNS = test_attention.TURNS
survivors, append = Policy.survivors, LayerCache.append
begin, layer_begin, next_positions = KVCache.__init__, LayerCache.__init__, KVCache.next_positions
rotate, causal_mask, banded_mask = positions.rotate, minisink.attention.causal_mask, minisink.attention.banded_mask


def holds(test, **example):
    """A property at one example."""
    return lambda: getattr(test, "hypothesis", SimpleNamespace(inner_test=test)).inner_test(**example)


def streaming(model):
    """StreamingLLM by the book."""
    sizes = {"n_sinks": 1, "window": 3, "positions": "slot"}
    return holds(test_forward.test_streaming_is_the_book, model=model, text=(IDS, ONES), **sizes)


chunks_are_single_tokens = holds(
    test_forward.test_chunks_are_one_token_at_a_time,
    model=LLAMA,
    text=(IDS, CHUNKS),
    policy=keep_sinks(1, 6),
    positions="slot",
)
capacity_holds = holds(
    test_forward.test_a_query_sees_at_most_capacity_keys,
    model=LLAMA,
    text=(IDS, ONES),
    policy=keep_sinks(1, 3),
    positions="slot",
)
cached_is_uncached = holds(test_forward.test_cached_is_uncached, model=LLAMA, text=(IDS, CHUNKS))
no_future = holds(
    test_forward.test_no_token_sees_its_future,
    model=LLAMA,
    ids=IDS,
    policy=keep_all(),
    data=SimpleNamespace(draw=lambda strategy: 7),
)
attend_is_the_book = holds(
    test_attention.test_attend_is_its_equation,
    seed=0,
    n_kv_heads=2,
    data=SimpleNamespace(draw=lambda strategy: [True] * 21),
)
banded_is_a_cache = holds(
    test_methods.test_banded_is_a_cache, model=LLAMA, text=(IDS, CHUNKS), sizes=(2, 3), positions="slot"
)
RETRIEVAL = {"model": LLAMA, "policy": retrieval.Retrieval(2, 3, n_blocks=1, block=2)}
retrieval_is_the_book = holds(test_retrieval.test_retrieval_is_the_book, text=(IDS, ONES), **RETRIEVAL)
fetched_was_evicted = holds(test_retrieval.test_what_is_fetched_was_evicted, ids=IDS, **RETRIEVAL)


# Wrong turns -------------------------------------------------------------------------------------


def keep_one_more(patch):
    patch.setattr(Policy, "survivors", lambda self, n: survivors(Policy(self.n_sinks, self.window + 1), n))


def keep_one_less(patch):
    patch.setattr(Policy, "survivors", lambda self, n: survivors(Policy(self.n_sinks, self.window - 1), n))


def begin_with_a_slot_of_zeros(patch):
    def start(self, keys, values, policy):
        zeros = np.zeros_like(keys, shape=(1, *keys.shape[1:]))
        layer_begin(self, zeros, zeros, policy)
        self.n_seen = 0

    patch.setattr(LayerCache, "__init__", start)


def never_shift_keys(patch):
    places = property(lambda self: np.minimum(self.token_index, self.policy.capacity - 1))
    patch.setattr(LayerCache, "positions", places)


def do_not_shift_the_new_key(patch):
    places = property(lambda self: np.append(np.arange(len(self.keys) - 1), self.token_index[-1:]))
    patch.setattr(LayerCache, "positions", places)


def see_the_future(patch):
    everything = lambda *args, **options: causal_mask(*args, **options) | True  # noqa: E731
    patch.setattr("minisink.paths.causal_mask", everything)


def take_a_chunk_at_once(patch):
    patch.setattr(LayerCache, "blocks", lambda self, n: iter([slice(0, n)]))


def take_a_chunk_at_once_and_evict_later(patch):
    def add(self, keys, values):
        keep = Policy(self.policy.n_sinks, self.policy.window + len(keys) - 1)  # what the first of them may see
        self.policy, policy = keep, self.policy
        append(self, keys, values)
        self.policy = policy

    take_a_chunk_at_once(patch)
    patch.setattr(LayerCache, "append", add)


def slice_from_minus_zero(patch):
    def stay(self, index):
        n = len(index)
        old, new = np.arange(n - 1), np.arange(n - 1, n)
        recent = old[self.n_sinks :][-(self.window - 1) :]  # everything when window is 1
        return np.concatenate((old[: self.n_sinks], recent, new))

    patch.setattr(Policy, "survivors", lambda self, i: stay(self, i) if len(i) > self.capacity else survivors(self, i))


def measure_in_one_pass(patch):
    def all_at_once(model, pieces, cache, block):
        (ids,) = pieces
        yield loss.nll_of(model.forward(ids[:-1]), ids[1:])

    patch.setattr(loss, "_streamed", all_at_once)


def turn_stored_keys_again_and_again(patch):
    """Keys are kept relative to the newest, and all that move are turned on at every step: exact but for rounding."""

    def add(self, keys, values):
        n, room = len(keys), self.policy.capacity - len(self.keys)
        fixed = 0 if room >= n else self.policy.n_sinks
        turned = rotate(self.keys[fixed:], -n, TURNS)
        self.keys = np.concatenate((self.keys[:fixed], turned))
        append(self, rotate(keys, np.arange(1 - n, 1), TURNS), values)

    patch.setattr(LayerCache, "append", add)
    patch.setattr(LayerCache, "positions", property(lambda self: np.full(len(self.keys), self.policy.capacity - 1)))


def pair_neighbouring_channels(x, positions, frequencies):
    order = np.argsort(np.r_[0 : x.shape[-1] : 2, 1 : x.shape[-1] : 2])
    return rotate(x[..., np.argsort(order)], positions, frequencies)[..., order]


def strip_letters(patch):
    def decode(self, ids):
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=False).strip("<s>")

    patch.setattr(minisink.Model, "decode", decode)


def text_survives_tokens():
    """Text that begins and ends with letters of "<s>" comes back from tokens as it was."""
    model, text = minisink.load("novels"), "she goes to sea, and he says"
    assert model.decode(model.encode(text)).strip() == text


def move_gpt2_keys(patch):
    patch.setattr(gpt2, "unrotated", lambda x, places: rotate(x, places, TURNS))


def wrap_learned_positions(patch):
    patch.setattr(KVCache, "next_positions", lambda self, n: next_positions(self, n) % 64)


# What this code itself invites -------------------------------------------------------------------


def band_one_too_wide(patch):
    wider = lambda T, S, window, like=None: banded_mask(T, S, window + 1, like)  # noqa: E731
    patch.setattr("minisink.fast.blocks.banded_mask", wider)


def share_layers_between_caches(patch):
    shared = []

    def start(self, *args, **options):
        begin(self, *args, **options)
        shared.extend(self.layers[len(shared) :])
        self.layers = shared

    patch.setattr(KVCache, "__init__", start)


def every_kth_head_shares_a_key(patch):
    def score(q, keys):
        repeated = np.tile(keys, (1, q.shape[1] // keys.shape[1], 1))  # head h takes h % K instead of h // (H / K)
        return q.swapaxes(0, 1) @ repeated.transpose(1, 2, 0) / np.sqrt(q.shape[2])

    patch.setattr("minisink.attention.score", score)


def forget_to_scale_scores(patch):
    score = minisink.attention.score
    patch.setattr("minisink.attention.score", lambda q, keys: score(q, keys) * np.sqrt(q.shape[2]))


def take_angles_in_float32(patch):
    def turn(x, places, frequencies):
        return rotate(x, np.asarray(places, np.float32), frequencies.astype(np.float32))

    patch.setattr(positions, "rotate", turn)


def meet_sinks_twice(patch):
    def visible(self, token, T, n_sinks, R, like):
        sinks = np.arange(n_sinks) <= np.arange(token, token + T)[:, None]
        return np.concatenate((sinks, banded_mask(T, R, self.policy.window)), axis=1)

    patch.setattr(Banded, "_visible", visible)


def number_sinks_by_the_text(patch):
    begin = Banded.__init__
    patch.setattr(Banded, "__init__", lambda self, n, policy: begin(self, n, replace(policy, positions="original")))


def number_windows_through(patch):
    patch.setattr(Windows, "positions", lambda self, n: np.arange(n))


def rewritten(place, name, old, new):
    """A function of `retrieval` with one expression changed."""

    def mutate(patch):
        source = textwrap.dedent(inspect.getsource(getattr(place, name)))
        assert source.count(old) == 1, old
        names = dict(vars(retrieval.cache))
        exec(source.replace(old, new), names)
        patch.setattr(place, name, names[name])

    return mutate


A_HEAD = "score(q, keys.reshape(N * B, K, D)).reshape(H, N, B) + additive(filled, scores.dtype)"
PARTS = "np.split(scores, [n_sinks, n_sinks + fetched.scores.shape[1]], axis=-1)"
THIRDS = f"np.concatenate([normalise(part) for part in {PARTS}], axis=-1) / 3"
SINKS = (
    "[(slots.keys[i], slots.values[i], slots.token_index[i]) for i in range(policy.n_sinks * (store.n_evicted == 0))]"
)
SINKS_TOO = f"[store.add(*sink) for sink in {SINKS}] and policy.n_sinks or policy.n_sinks"
OF_RETRIEVAL = [  # what, in which function, which expression becomes which, and the property that sees it
    ("chosen by the un-rotated query", "fetch", "block_scores(query, keys, scores", f"block_scores(q, keys, {A_HEAD}"),
    ("fetched keys where they stood in the text", "fetch", 'policy.positions == "original"', "True"),
    ("fetched keys one nearer", "fetch", "np.array([policy.window])", "np.array([policy.window - 1])"),
    ("empty places of a block attended to", "fetch", "additive(filled, scores.dtype)", "0.0"),
    ("a head fetches for its neighbour", "fetch", "head // (H // K)", "head % K"),
    ("a softmax each, averaged", "attend_with", "pattern = normalise(scores)", f"pattern = {THIRDS}"),
    ("the window stored before it leaves", "mix", "leaving = policy.n_sinks", "leaving = policy.n_sinks + 1"),
    ("the sinks stored a second time", "mix", "leaving = policy.n_sinks", f"leaving = {SINKS_TOO}"),
    ("the token that leaves is not yet there", "mix", "if len(store) and", "if store.n_evicted > 1 and"),
]


MUTATIONS = [
    ("1 evict after attending", keep_one_more, capacity_holds),
    ("1 evict after attending", keep_one_more, streaming(LLAMA)),
    ("1 take the authors' recent for the window", keep_one_less, streaming(LLAMA)),
    ("2 a slot of zeros", begin_with_a_slot_of_zeros, cached_is_uncached),
    ("3 keys rotated once and never shifted", never_shift_keys, streaming(LLAMA)),
    ("3 the new key not shifted", do_not_shift_the_new_key, streaming(LLAMA)),
    (
        "3 the new key not shifted",
        do_not_shift_the_new_key,
        holds(
            test_attention.test_rotating_by_slot_is_shifting_rotated_keys_on_eviction,
            seed=0,
            chunks=CHUNKS,
            n_sinks=1,
            window=3,
        ),
    ),
    ("4 a chunk sees its own future", see_the_future, no_future),
    ("4 a chunk sees its own future", see_the_future, chunks_are_single_tokens),
    ("4 a chunk evicts what its first token needs", take_a_chunk_at_once, chunks_are_single_tokens),
    ("4 a chunk sees keys out of its window", take_a_chunk_at_once_and_evict_later, chunks_are_single_tokens),
    (
        "5 keys[-0:]",
        slice_from_minus_zero,
        holds(test_cache.test_a_window_of_one_keeps_one_token_and_not_all),
    ),
    (
        "5 keys[-0:]",
        slice_from_minus_zero,
        holds(
            test_cache.test_slots_are_the_first_sinks_and_the_last_window_at_every_step,
            policy=keep_window(1),
            positions="slot",
            runs=[1, 1, 1],
        ),
    ),
    (
        "6 perplexity in one pass, where nothing is evicted",
        measure_in_one_pass,
        holds(test_methods.test_methods_agree_until_the_first_eviction_and_then_part, arch=llama),
    ),
    (
        "7 stored keys turned again and again in half precision",
        turn_stored_keys_again_and_again,
        holds(test_attention.test_stored_keys_do_not_drift, seed=0),
    ),
    (
        "8 neighbouring channels paired",
        lambda patch: patch.setattr(llama, "rotate", pair_neighbouring_channels),
        holds(test_forward.test_dense_is_the_book, model=LLAMA, ids=IDS),
    ),
    (
        "8 neighbouring channels paired",
        lambda patch: patch.setattr(positions, "rotate", pair_neighbouring_channels),
        holds(test_positions.test_rotate_is_its_equation, seed=0, place=np.array([1, 5, 9]), theta=10.0),
    ),
    ("9 str.strip('<s>')", strip_letters, text_survives_tokens),
    ("10 GPT-2 keys moved to their slots", move_gpt2_keys, streaming(GPT2)),
    (
        "10 GPT-2 positions used a second time",
        wrap_learned_positions,
        holds(
            test_forward.test_gpt2_refuses_positions_it_has_not_learned, model=GPT2, policy=keep_window(3), too_many=1
        ),
    ),
    ("a band one too wide", band_one_too_wide, banded_is_a_cache),
    (
        "caches that share layers",
        share_layers_between_caches,
        holds(
            test_forward.test_two_caches_never_interact,
            model=LLAMA,
            ids=IDS,
            other=IDS[::-1],
            policy=keep_window(3),
            positions="slot",
        ),
    ),
    ("grouped heads in the wrong order", every_kth_head_shares_a_key, attend_is_the_book),
    ("scores not scaled", forget_to_scale_scores, attend_is_the_book),
    (
        "softmax1 that is softmax",
        lambda patch: patch.setattr("minisink.attention.softmax1", ops.softmax),
        attend_is_the_book,
    ),
    (
        "angles in float32",
        take_angles_in_float32,
        holds(test_positions.test_angles_are_float64_even_for_float32_vectors, seed=0, place=3),
    ),
    ("sinks met twice", meet_sinks_twice, banded_is_a_cache),
    ("sinks numbered by the text", number_sinks_by_the_text, banded_is_a_cache),
    (
        "windows numbered through",
        number_windows_through,
        holds(test_methods.test_windows_side_by_side_do_not_see_each_other, model=GPT2, length=3, n_windows=2, seed=0),
    ),
]


for what, function, old, new in OF_RETRIEVAL:
    wrong = rewritten(retrieval.cache.RetrievalPath if function == "mix" else retrieval.cache, function, old, new)
    MUTATIONS += [(f"retrieval: {what}", wrong, retrieval_is_the_book)]
    if function == "mix" and "yet" not in what:
        MUTATIONS += [(f"retrieval: {what}, by the trace", wrong, fetched_was_evicted)]


@pytest.mark.parametrize(("mutate", "check"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
def test_a_wrong_turn_turns_its_property_red(mutate, check, monkeypatch):
    """The property holds, and no longer does once the mistake is made."""
    check()
    mutate(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check()


def test_turning_stored_keys_is_wrong_for_its_rounding_only(monkeypatch):
    """In float64 wrong turn 7 gives the right scores: what goes wrong is half precision."""
    turn_stored_keys_again_and_again(monkeypatch)
    streaming_scores = holds(
        test_attention.test_rotating_by_slot_is_shifting_rotated_keys_on_eviction,
        seed=0,
        chunks=ONES,
        n_sinks=1,
        window=3,
    )
    streaming_scores()
