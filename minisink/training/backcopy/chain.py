"""The Bigram-Backcopy task: the smallest world in which a sink forms.

Guo et al., arXiv:2410.13835, section 2. A text is BOS and then a Markov chain, except after a few
*trigger* tokens: there the token *before* the trigger is repeated. To predict it, a head must look one back
at triggers and has nothing to do elsewhere, where the token itself says everything. Softmax has no "nothing":
the idle weight gathers on BOS, whose value the head makes small. That is an attention sink.

::

    BOS  k  c  T  c  m  a ...     T is a trigger, so c follows again
"""

from dataclasses import dataclass

import numpy as np

BOS = 0


@dataclass(frozen=True)
class Task:
    """The chain."""

    table: np.ndarray  # (V, V), table[a, b]: probability of b after a; b is never BOS
    n_triggers: int  # tokens 1 to n_triggers, common ones, so that there is enough to learn from
    starts_with_bos: bool = True

    @classmethod
    def random(cls, seed, n_tokens=33, n_triggers=5, spread=1.5, starts_with_bos=True):
        """Draw a chain whose logits are normal with std `spread`; its most frequent tokens are the triggers.

        No trigger comes right after BOS. So a trigger always has an ordinary token before it, and repeats an
        ordinary one: if it repeated a trigger, the two would repeat each other to the end of the text.
        """
        logits = np.random.default_rng([seed, 0]).standard_normal((n_tokens, n_tokens)) * spread
        logits[:, BOS] = -np.inf
        weights = np.exp(logits)
        table = weights / weights.sum(axis=1, keepdims=True)
        frequency = np.linalg.matrix_power(table, 100)[BOS, 1:]  # of each token, far from the start
        order = np.concatenate(([BOS], 1 + np.argsort(-frequency)))
        table = table[order][:, order]
        table[BOS, 1 : n_triggers + 1] = 0.0
        table[BOS] /= table[BOS].sum()
        return cls(table, n_triggers, starts_with_bos)

    def is_trigger(self, ids):
        """Return which tokens are triggers."""
        return (ids >= 1) & (ids <= self.n_triggers)

    def draw(self, random, n_samples, length):
        """Draw texts, (B, T) int64, and each token's cost to a reader who knows the chain, (B, T) in nats."""
        sums = self.table.cumsum(axis=1)
        ids = np.full((n_samples, length), BOS, np.int64)
        nll = np.zeros((n_samples, length))
        for t in range(int(self.starts_with_bos), length):
            before = ids[:, t - 1]  # for t = 0 the last column, still BOS
            drawn = (random.random(n_samples)[:, None] * sums[before, -1:] > sums[before]).sum(axis=1)
            copies = self.is_trigger(before)  # never before t = 2, because no text begins with a trigger
            ids[:, t] = np.where(copies, ids[:, t - 2], drawn)
            nll[:, t] = -np.log(np.where(copies, 1.0, self.table[before, ids[:, t]]))
        return ids, nll

    def floor(self, length):
        """Compute the loss nobody can beat: the mean entropy of the next token, in nats, over `length` predictions.

        Exact: the probability of every pair of neighbours (a, b) is tracked. After a copying pair the next
        token is certain; after any other it costs the entropy of row b of the table.
        """
        V = len(self.table)
        entropy = -np.sum(self.table * np.log(self.table, where=self.table > 0, out=np.zeros_like(self.table)), axis=1)
        copies = self.is_trigger(np.arange(V))  # (V,), of b
        pair = np.zeros((V, V))
        pair[BOS, BOS] = 1.0
        total = 0.0
        for t in range(-int(not self.starts_with_bos), length):
            free = np.where(copies, 0.0, pair).sum(axis=0)  # (V,): probability of b with anything allowed next
            total += float(free @ entropy) if t >= 0 else 0.0
            pair = np.where(copies, pair, 0.0).T + free[:, None] * self.table  # a b -> b a, or b and whatever follows
        return total / length
