"""Wrong turns of attention."""

import numpy as np

from .softmax import FROM_ZERO, exp, from_zero, over_sum, softmax


def scores(q, k, power=0.5):  # (T, D), (S, D) -> (T, S)
    """Return ``q · k / sqrt(D)``, or divided by a different power of D."""
    return q @ k.T / q.shape[1] ** power


def masked(q, k, visible, hidden=-np.inf, power=0.5):
    """Return the scores, with `hidden` for a key that is not visible."""
    return np.where(visible, scores(q, k, power), hidden)


def attention(scores=masked, weights=softmax, **changed):
    """Return attention with the weights ``weights(scores(q, k, visible, **changed))``."""
    return lambda q, k, v, visible: weights(scores(q, k, visible, **changed)) @ v


def one_more_slot(q, k, v, visible):
    """Attend to a slot of zeros that was never filled, an accidental sink."""
    k, v = (np.concatenate((np.zeros((1, x.shape[1])), x)) for x in (k, v))
    return softmax(masked(q, k, np.insert(visible, 0, True, axis=1))) @ v


ATTEND = {
    # seen in ports of chunked prompts
    "the mask is ignored: it sees its own future (wrong turn 4)": attention(lambda q, k, seen: scores(q, k)),
    "a masked score is zero, not minus infinity": attention(hidden=0.0),
    "the mask is added to the scores, as 0 and 1": attention(lambda q, k, seen: scores(q, k) + seen),
    "a masked score is -1, not minus infinity": attention(hidden=-1.0),
    "a masked score is not low enough": tuple(attention(hidden=low) for low in (-1e2, -1e1)),
    "its own causal mask, not the one that is given": attention(lambda q, k, seen: masked(q, k, np.tri(*seen.shape))),
    "the mask is upside down": (
        attention(lambda q, k, seen: np.where(seen, -1e9, scores(q, k))),
        attention(lambda q, k, seen: masked(q, k, ~seen)),
    ),
    # seen in teaching notebooks
    "masked after the softmax, not renormalised (wrong turn 20)": lambda q, k, v, seen: (
        softmax(scores(q, k)) * seen @ v
    ),
    "scores are not divided by sqrt(D)": attention(power=0.0),
    "scores are divided by D, not by its root": attention(power=1.0),
    "scores are multiplied by sqrt(D)": attention(power=-0.5),
    "scores are divided by the root of S, not of D": attention(
        lambda q, k, seen: masked(q, k, seen, power=0.0) / len(k) ** 0.5
    ),
    "one extra slot, of zeros (wrong turn 2)": one_more_slot,  # seen in a decode loop that started a slot late
    "softmax over queries, not keys": lambda q, k, v, seen: softmax(masked(q, k, seen, -1e30).T).T * seen @ v,
    "one softmax over the whole matrix": attention(weights=lambda x: softmax(x.ravel()).reshape(x.shape)),
    "the weights are not normalised": attention(weights=exp),
    "the exponential overflows": attention(weights=lambda x: over_sum(np.exp(x))),
    FROM_ZERO: attention(weights=from_zero),
    "keys are mixed, not values": lambda q, k, v, seen: softmax(masked(q, k, seen)) @ k,
}
