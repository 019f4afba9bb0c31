"""Wrong turns of attention."""

import numpy as np

from .turn import turns


def _softmax(x):
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _scores(q, k, visible=None, power=0.5):
    scores = q @ k.T / q.shape[1] ** power
    return scores if visible is None else np.where(visible, scores, -np.inf)


def sees_all(q, k, v, visible):
    """The mask is not used: a chunk sees its own future, and keys that have left the window."""
    return _softmax(_scores(q, k)) @ v


def a_mask_of_its_own(q, k, v, visible):
    """Causal from the first key on, whatever may be seen."""
    causal = np.tril(np.ones((len(q), len(k)), bool))
    return _softmax(np.where(causal, _scores(q, k), -np.inf)) @ v


def masks_after_softmax(q, k, v, visible):
    """Masked weights are set to zero, and the others stay as small as they were."""
    return (_softmax(_scores(q, k)) * visible) @ v


def masks_with_zero(q, k, v, visible):
    """A score of zero is no mask: exp(0) is one."""
    return _softmax(np.where(visible, _scores(q, k), 0.0)) @ v


def masks_the_others(q, k, v, visible):
    """True was taken for hidden."""
    scores = np.where(visible, -1e9, _scores(q, k))
    return _softmax(scores) @ v


def does_not_scale(q, k, v, visible):
    """Without 1 / sqrt(D)."""
    return _softmax(_scores(q, k, visible, 0.0)) @ v


def scales_by_width(q, k, v, visible):
    """D for sqrt(D)."""
    return _softmax(_scores(q, k, visible, 1.0)) @ v


def one_more_slot_of_zeros(q, k, v, visible):
    """A slot of zeros that was never filled is attended to: an accidental sink."""
    k, v = (np.concatenate((np.zeros((1, x.shape[1])), x)) for x in (k, v))
    visible = np.concatenate((np.ones((len(q), 1), bool), visible), axis=1)
    return _softmax(_scores(q, k, visible)) @ v


def normalises_over_queries(q, k, v, visible):
    """Softmax along the wrong axis."""
    scores = np.where(visible, _scores(q, k), -1e30)
    return _softmax(scores.T).T * visible @ v


def scales_by_the_keys(q, k, v, visible):
    """The square root of S, not of D."""
    return _softmax(np.where(visible, q @ k.T / np.sqrt(len(k)), -np.inf)) @ v


def scales_upwards(q, k, v, visible):
    """Multiplied."""
    return _softmax(_scores(q, k, visible, -0.5)) @ v


def masks_all(q, k, v, visible):
    """True was taken for hidden, and minus infinity was all that was left."""
    with np.errstate(all="ignore"):
        return _softmax(_scores(q, k, ~visible)) @ v


def adds_the_mask(q, k, v, visible):
    """One more for what is seen, and none for what is not."""
    return _softmax(_scores(q, k) + visible) @ v


def masks_a_little(q, k, v, visible):
    """A number that other scores can be compared with."""
    return _softmax(np.where(visible, _scores(q, k), -1.0)) @ v


def one_softmax_for_all(q, k, v, visible):
    """The sum runs over the whole matrix."""
    weights = np.exp(_scores(q, k, visible) - _scores(q, k, visible).max())
    return weights / weights.sum() @ v


def not_normalised(q, k, v, visible):
    """Exponentials alone."""
    return np.exp(_scores(q, k, visible) - _scores(q, k, visible).max(axis=1, keepdims=True)) @ v


def overflows(q, k, v, visible):
    """The exponential of a large score is infinite."""
    with np.errstate(all="ignore"):
        weights = np.exp(_scores(q, k, visible))
        return weights / weights.sum(axis=1, keepdims=True) @ v


def mixes_keys(q, k, v, visible):
    """What comes home is keys."""
    return _softmax(_scores(q, k, visible)) @ k


MASK = ("What may this query see?", "A key that is hidden must get no weight at all.",
        "Set its score to minus infinity before the softmax.")  # fmt: skip
TRUE = ("Which keys does query t see?", "Those for which visible[t] is True; not always the ones before it.",
        "Minus infinity where visible is False, the score where it is True.")  # fmt: skip
BEFORE = ("What do the weights of a masked row add up to?", "To one, always: that is the whole point of a sink.",
          "Mask the scores before the softmax, not the weights after it.")  # fmt: skip
SCALE = ("How do scores grow with the width?", "There is a square root in the formula.", "q . k / sqrt(D).")
ZERO = ("How many keys are there, and how many does your softmax have?",
        "Something of zeros has a score too: zero; softmax1 for softmax does the same.",
        "Slice the slots that are filled; a slot of zeros is a key that takes weight.")  # fmt: skip
AXIS = ("Whose weights add up to one?", "Each query has its own softmax.", "The softmax runs over keys, the last axis.")
LARGE = ("What is exp(1000)?", "Taking one number off all scores of a query changes no weight.",
         "Take off the largest score of each query before exp.")  # fmt: skip
HOME = ("What does a key do, and what a value?", "A token is found by its key and gives its value.",
        "The weights come from q and k; what they mix is v.")  # fmt: skip
TURNS = turns(
    ("the mask is ignored: it sees its own future", 4, "chunks of a prompt in several ports", MASK, sees_all),
    ("masked after the softmax, not renormalised", 20, "teaching notebooks", BEFORE, masks_after_softmax),
    ("a causal mask of its own, not the one that is given", None, "", TRUE, a_mask_of_its_own),
    ("a masked score is zero, not minus infinity", None, "", MASK, masks_with_zero),
    ("the mask is upside down", None, "", TRUE, masks_the_others, masks_all),
    ("the mask is added to the scores, as 0 and 1", None, "", MASK, adds_the_mask),
    ("a masked score is -1, not minus infinity", None, "", MASK, masks_a_little),
    ("scores are not divided by sqrt(D)", None, "", SCALE, does_not_scale),
    ("scores are divided by D, not by its root", None, "", SCALE, scales_by_width),
    ("scores are divided by the root of S, not of D", None, "", SCALE, scales_by_the_keys),
    ("scores are multiplied by sqrt(D)", None, "", SCALE, scales_upwards),
    ("one more slot, of zeros", 2, "a decode loop that started a slot late", ZERO, one_more_slot_of_zeros),
    ("softmax over queries, not keys", None, "", AXIS, normalises_over_queries),
    ("one softmax over the whole matrix", None, "", AXIS, one_softmax_for_all),
    ("the weights are not normalised", None, "", AXIS, not_normalised),
    ("the exponential overflows", None, "first versions everywhere", LARGE, overflows),
    ("keys are mixed, not values", None, "", HOME, mixes_keys),
)  # fmt: skip
