"""Every known wrong turn, taken on purpose: the property it belongs to must turn red.

Those of the gallery are put into the readable path from there: its slots, its positions, its scores. Numbers are those
of docs/check.md. What follows them are the mistakes that this code itself invites.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import test_attention
import test_cache
import test_forward
import test_methods
import test_positions
import tiny

import minisink
from minisink import Dense, Streaming, Window, gpt2, llama, loss, ops, positions
from minisink.cache import KVCache, LayerCache, Policy
from minisink.fast.blocks import Banded, Windows
from minisink.wrong_turns import OTHER_POSITIONS, OTHERS_STAY, holding
from minisink.wrong_turns.positions import LateKey
from minisink.wrong_turns.tokens import MinusZero, OneMore, Overlapping

LLAMA, GPT2, IDS = tiny.make(llama), tiny.make(gpt2), tiny.ids(12).tolist()
ONES, CHUNKS = [1] * 12, [2, 3, 2, 5]
RATES = test_attention.TURNS
survivors, append = Policy.survivors, LayerCache.append
begin, layer_begin, next_positions = KVCache.__init__, LayerCache.__init__, KVCache.next_positions
rotate, causal_mask, banded_mask = positions.rotate, minisink.attention.causal_mask, minisink.attention.banded_mask


def holds(test, **example):
    """A property at one example."""
    return lambda: getattr(test, "hypothesis", SimpleNamespace(inner_test=test)).inner_test(**example)


def streaming(model, n_sinks=1, window=3):
    """StreamingLLM by the book."""
    sizes = {"n_sinks": n_sinks, "window": window, "positions": "slot"}
    return holds(test_forward.test_streaming_is_the_book, model=model, text=(IDS, ONES), **sizes)


def chunked(policy, chunks):
    """An example of a cache in chunks."""
    return {"model": LLAMA, "text": (IDS, chunks), "policy": policy, "positions": "slot"}


chunks_are_single_tokens = holds(test_forward.test_chunks_are_one_token_at_a_time, **chunked(Streaming(1, 6), CHUNKS))
capacity_holds = holds(test_forward.test_a_query_sees_at_most_capacity_keys, **chunked(Streaming(1, 3), ONES))
cached_is_uncached = holds(test_forward.test_cached_is_uncached, model=LLAMA, text=(IDS, CHUNKS))
no_future = holds(
    test_forward.test_no_token_sees_its_future,
    model=LLAMA,
    ids=IDS,
    policy=Dense(),
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
shifting_is_rotating = holds(
    test_attention.test_rotating_by_slot_is_shifting_rotated_keys_on_eviction,
    seed=0,
    chunks=CHUNKS,
    n_sinks=1,
    window=3,
)
slots_of_a_window = holds(
    test_cache.test_slots_are_the_first_sinks_and_the_last_window_at_every_step,
    policy=Window(1),
    positions="slot",
    runs=[1, 1, 1],
)
dense_is_the_book = holds(test_forward.test_dense_is_the_book, model=LLAMA, ids=IDS)


# From the gallery ---------------------------------------------------------------------------------


def stays_as_in(wrong):
    """The slots that stay are those of a wrong cache."""

    def stay(self, token_index):
        if self.window is None or len(token_index) == 0:
            return survivors(self, token_index)
        cache = holding(wrong, token_index, self.n_sinks, self.window)
        return np.array(cache.survivors(len(token_index)), int)

    return lambda patch: patch.setattr(Policy, "survivors", stay)


def stands_as_in(wrong):
    """Positions are those of a wrong cache."""

    def places(self, token_index):
        return np.array(holding(wrong, token_index, self.n_sinks, self.window).positions)

    return lambda patch: patch.setattr(Policy, "positions_of", places)


# Into this code's own functions -------------------------------------------------------------------


def begin_with_a_slot_of_zeros(patch):
    def start(self, keys, values, policy):
        zeros = np.zeros_like(keys, shape=(1, *keys.shape[1:]))
        layer_begin(self, zeros, zeros, policy)
        self.n_seen = 0

    patch.setattr(LayerCache, "__init__", start)


def see_the_future(patch):
    everything = lambda *args, **options: causal_mask(*args, **options) | True  # noqa: E731
    patch.setattr("minisink.paths.causal_mask", everything)


def take_a_chunk_at_once(patch):
    patch.setattr("minisink.paths.blocks", lambda layer, n: iter([slice(0, n)]))


def take_a_chunk_at_once_and_evict_later(patch):
    def add(self, keys, values):
        keep = Policy(self.policy.n_sinks, self.policy.window + len(keys) - 1)  # what the first of them may see
        self.policy, policy = keep, self.policy
        append(self, keys, values)
        self.policy = policy

    take_a_chunk_at_once(patch)
    patch.setattr(LayerCache, "append", add)


def measure_in_one_pass(patch):
    def all_at_once(model, ids, cache, chunk):
        yield loss.nll_of(model.forward(ids[:-1]), ids[1:])

    patch.setattr(loss, "losses", all_at_once)


def turn_stored_keys_again_and_again(patch):
    """Keys are kept relative to the newest, and all that move are turned on at every step: exact but for rounding."""

    def add(self, keys, values):
        n, room = len(keys), self.policy.capacity - len(self.keys)
        fixed = 0 if room >= n else self.policy.n_sinks
        turned = rotate(self.keys[fixed:], -n, RATES)
        self.keys = np.concatenate((self.keys[:fixed], turned))
        append(self, rotate(keys, np.arange(1 - n, 1), RATES), values)

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
    patch.setattr(gpt2.Config, "encoding", staticmethod(lambda x, places: rotate(x, places, RATES)))


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
    def in_float32(x, places, frequencies):
        return rotate(x, np.asarray(places, np.float32), frequencies.astype(np.float32))

    patch.setattr(positions, "rotate", in_float32)


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


MUTATIONS = [
    ("1 evict after attending", stays_as_in(OneMore), capacity_holds),
    ("2 a slot of zeros", begin_with_a_slot_of_zeros, cached_is_uncached),
    ("3 the new key not shifted", stands_as_in(LateKey), shifting_is_rotating),
    ("4 a chunk sees its own future", see_the_future, no_future),
    ("4 a chunk sees its own future", see_the_future, chunks_are_single_tokens),
    ("4 a chunk evicts what its first token needs", take_a_chunk_at_once, chunks_are_single_tokens),
    ("4 a chunk sees keys out of its window", take_a_chunk_at_once_and_evict_later, chunks_are_single_tokens),
    ("5 keys[-0:]", stays_as_in(MinusZero), holds(test_cache.test_a_window_of_one_keeps_one_token_and_not_all)),
    ("5 keys[-0:]", stays_as_in(MinusZero), slots_of_a_window),
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
        lambda patch: patch.setattr(positions, "rotate", pair_neighbouring_channels),
        dense_is_the_book,
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
        holds(test_forward.test_gpt2_refuses_positions_it_has_not_learned, model=GPT2, policy=Window(3), too_many=1),
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
            policy=Window(3),
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
for wrong in [each for each in OTHERS_STAY if each is not Overlapping]:  # a slot twice is no eviction to a LayerCache
    sizes = (1, 1) if issubclass(wrong, MinusZero) else (2, 4)
    MUTATIONS.append((f"slots: {wrong.name}", stays_as_in(wrong), streaming(LLAMA, *sizes)))
for wrong in OTHER_POSITIONS:
    MUTATIONS.append((f"positions: {wrong.name}", stands_as_in(wrong), streaming(LLAMA, 2, 4)))


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
    shifting_is_rotating()
