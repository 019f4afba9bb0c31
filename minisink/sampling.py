"""From logits to a token: the likeliest, or a draw."""

import numpy as np

from .ops import softmax


class Sampler:
    """Pick the next token from logits; keep the random generator and which tokens have occurred.

    The options are those of `generation.generate`; a value out of range raises ValueError.
    """

    def __init__(self, *, temperature=0.0, top_k=0, top_p=1.0, repetition_penalty=1.0, seed=0):
        if not 0.0 <= temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; it must be 0 or more")
        if top_k < 0:
            raise ValueError(f"top_k is {top_k}; it must be 0 (all) or more")
        if not 0.0 < top_p <= 1.0:
            raise ValueError(f"top_p is {top_p}; it must be above 0 and at most 1")
        if not 0.0 < repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty is {repetition_penalty}; it must be above 0")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.repetition_penalty = repetition_penalty
        self.seen = set()  # tokens that have occurred
        try:
            self.random = np.random.default_rng(seed)
        except (TypeError, ValueError):
            raise ValueError(f"seed is {seed!r}; it must be a whole number of 0 or more") from None

    def __call__(self, logits):  # (V,) -> int
        """Choose a token."""
        logits = logits.astype(np.float64)
        if self.repetition_penalty != 1.0:
            repeated = np.array(sorted(self.seen), dtype=np.int64)
            heavier = logits[repeated] * self.repetition_penalty
            logits[repeated] = np.where(logits[repeated] > 0, logits[repeated] / self.repetition_penalty, heavier)
        if self.temperature == 0.0:
            token = int(logits.argmax())
        else:
            p = self.probabilities(logits)
            token = int(self.random.choice(len(p), p=p))
        if self.repetition_penalty != 1.0:
            self.seen.add(token)
        return token

    def probabilities(self, logits):  # (V,) float64 -> (V,), summing to one
        """Weigh every token: by temperature, then top-k, then top-p.

        >>> Sampler(temperature=1.0, top_p=0.7).probabilities(np.log([0.5, 0.3, 0.2])).round(3).tolist()
        [0.625, 0.375, 0.0]
        """
        with np.errstate(over="ignore"):  # at a tiny temperature all but the likeliest are minus infinity
            p = softmax((logits - logits.max()) / self.temperature)
        order = np.argsort(-logits, kind="stable")  # likeliest first; ties by id
        n_kept = min(self.top_k, len(p)) if self.top_k else len(p)
        if self.top_p < 1.0:
            p_kept = p[order[:n_kept]] / p[order[:n_kept]].sum()
            # a token is kept as long as those before it hold less than top_p
            n_kept = int((np.cumsum(p_kept) - p_kept < self.top_p).sum())
        truncated = np.zeros_like(p)
        truncated[order[:n_kept]] = p[order[:n_kept]]
        return truncated / truncated.sum()
