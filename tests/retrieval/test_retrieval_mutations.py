"""Mistakes that retrieval invites: each turns its property red."""

import inspect
import textwrap

import pytest
import test_retrieval
from test_mutations import IDS, LLAMA, ONES, holds

from minisink import retrieval

RETRIEVAL = {"model": LLAMA, "policy": retrieval.Retrieval(2, 3, n_blocks=1, block=2)}
retrieval_is_the_book = holds(test_retrieval.test_retrieval_is_the_book, text=(IDS, ONES), **RETRIEVAL)
fetched_was_evicted = holds(test_retrieval.test_what_is_fetched_was_evicted, ids=IDS, **RETRIEVAL)


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
BY_THE_TRACE = [row for row in OF_RETRIEVAL if row[1] == "mix" and "yet" not in row[0]]
MUTATIONS = [(*row, retrieval_is_the_book) for row in OF_RETRIEVAL] + [
    (*row, fetched_was_evicted) for row in BY_THE_TRACE
]


@pytest.mark.parametrize(("what", "function", "old", "new", "check"), MUTATIONS)
def test_a_wrong_turn_turns_its_property_red(what, function, old, new, check, monkeypatch):
    """The property holds, and no longer does once the mistake is made."""
    check()
    rewritten(retrieval.cache.RetrievalPath if function == "mix" else retrieval.cache, function, old, new)(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check()
