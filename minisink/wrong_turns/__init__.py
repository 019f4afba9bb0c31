"""A gallery of wrong turns, most of them seen in public code and reports.

`conformance`, `teaching` and the mutation tests use it. `right.Cache` is a right cache; every other cache is that one
with one method changed, and its docstring is the diagnosis. Everything else (a softmax, a rotation, a loss) is a
function in a table, under its title.

>>> OneMore(n_sinks=2, window=3, theta=None).survivors(7)
[0, 1, 3, 4, 5, 6]
>>> print(OneMore.diagnosis().partition("; ")[0])
the query sees one key too many: eviction comes after attention, or before the new key is in
"""

from ..attention import attend as right_attend
from . import attend, chunks, encodings, engine, heads, positions, retrieve, rotate, slots, softmax, token_nll, tokens
from .chunks import OneLeaves
from .engine import WrongGroup
from .right import Cache
from .tokens import OneMore
from .turn import HINTS, WrongTurn, turns


def caches(module) -> tuple[type[Cache], ...]:
    """Return the wrong caches in a module, in its order."""
    classes = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Cache)]
    return tuple(each for each in classes if each.__module__ == module.__name__ and each.name != Cache.name)


TOKENS, POSITIONS, HEADS, ENGINE, CHUNKS = (caches(each) for each in (tokens, positions, heads, engine, chunks))
WRONG_TURNS = (*TOKENS, *POSITIONS, *HEADS, *ENGINE, *CHUNKS)
ENCODINGS = caches(encodings)  # only for encodings other than rotary over the whole head


# For the tasks of `teaching`: each `as_...` turns a cache into the function of that task -------------


def as_step(cache):
    def step(state, q, k, v, n_sinks, window, theta):  # (D,), (D,), (D,) -> (D,), state; or with an axis of heads
        state = state or cache(n_sinks=n_sinks, window=window, theta=theta)
        return (state.step(q, k, v) if q.ndim == 2 else state.step(q[None], k[None], v[None])[0]), state

    return step


def as_attend(cache):
    def attend(q, k, v, visible):  # (T, H, D), 2 x (S, K, D), (T, S) -> (T, H, D)
        return right_attend(q, cache.repeated(k, q.shape[1]), cache.repeated(v, q.shape[1]), visible)

    return attend


def holding(cache, token_index, n_sinks, window):
    """Return a cache that holds these tokens."""
    full = cache(n_sinks=n_sinks, window=window, theta=None)
    full.token_index, full.n_seen = [int(token) for token in token_index], int(token_index[-1]) + 1
    return full


def as_survivors(cache):
    return lambda n_slots, *sizes: holding(cache, range(n_slots), *sizes).survivors(n_slots)


def as_positions_of(cache):
    return lambda token_index, *sizes: holding(cache, token_index, *sizes).positions


def turns_of(adapter, each_cache, numbers=None):
    """Return caches as wrong turns of a task: the title says what is wrong, not what to do."""
    turns = []
    for cache in each_cache:
        title, number = cache.diagnosis().partition("; ")[0], (numbers or {}).get(cache, cache.number)
        title = title if number is None else f"{title} (wrong turn {number})"
        turns.append(WrongTurn(title, HINTS["caches"][cache.name], adapter(cache)))
    return turns


RIGHT = Cache.survivors, Cache.sizes
OTHERS_STAY = [each for each in TOKENS if (each.survivors, each.sizes) != RIGHT and "mix" not in vars(each)]
OTHER_POSITIONS = [each for each in POSITIONS if each.place and "own" not in vars(each)]
TURNS = {
    "softmax": turns("softmax", softmax.SOFTMAX),
    "softmax1": turns("softmax1", softmax.SOFTMAX1),
    "attend": turns("attend", attend.ATTEND) + turns_of(as_attend, [WrongGroup]),
    "rotate": turns("rotate", rotate.ROTATE),
    "survivors": turns_of(as_survivors, [*OTHERS_STAY, OneLeaves], {OneMore: 17}) + turns("survivors", slots.SURVIVORS),
    "positions_of": turns_of(as_positions_of, OTHER_POSITIONS) + turns("positions_of", slots.POSITIONS_OF),
    "step": turns_of(as_step, [*TOKENS, *POSITIONS, *HEADS, WrongGroup]),
    "token_nll": turns("token_nll", token_nll.TOKEN_NLL),
    "retrieve": turns("retrieve", retrieve.RETRIEVE),
}
LEFT = "something is left over from an earlier call: on its own, the same case gives a different answer"
LEFT_OVER = WrongTurn(LEFT, HINTS["any"][LEFT])
