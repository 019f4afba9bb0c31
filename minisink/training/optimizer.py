"""AdamW, plain gradient descent, the learning-rate schedule, and clipping, in place on one vector (see `parameters`).

Loshchilov and Hutter, arXiv:1711.05101: the decay is *decoupled*. It shrinks the weights themselves and does not pass
through the moments.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..system.threads import one_thread


@dataclass(frozen=True)
class Schedule:
    """Learning rate of each step: a linear warm-up, a constant, a linear fall over the last part.

    >>> [round(Schedule(1.0, 10, warmup=2, decay=0.4, final=0.0).rate(i), 2) for i in range(10)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """

    peak: float
    n_steps: int  # length of the whole run
    warmup: int = 100  # steps until the peak is reached
    decay: float = 0.3  # share of the steps, at the end, over which it falls
    final: float = 0.0  # where it falls to, as a share of the peak

    def rate(self, step):
        """Return the learning rate of step 0, 1, ..., n_steps - 1."""
        rising = (step + 1) / self.warmup if self.warmup else 1.0
        length = self.decay * self.n_steps
        left = (self.n_steps - step) / length if length else 1.0  # 1 where the fall begins
        falling = self.final + (1.0 - self.final) * min(1.0, left)
        return self.peak * min(1.0, rising, falling)


class AdamW:
    """First and second moments of the gradient, and the rule that turns them into a step.

    ::

        m = b1 m + (1 - b1) g           w = w - lr * weight_decay * w          (what decays)
        v = b2 v + (1 - b2) g^2         w = w - lr * m' / (sqrt(v') + eps)

    with ``m' = m / (1 - b1^t)`` and ``v' = v / (1 - b2^t)``.
    """

    def __init__(self, vector, decayed, *, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1):
        self.m, self.v, self.t = np.zeros_like(vector), np.zeros_like(vector), 0  # (P,), (P,), steps done
        self.decayed = decayed  # the slice of the vector that decays
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def step(self, vector, gradient, rate):
        """Change `vector` by one step."""
        b1, b2 = self.betas
        self.t += 1
        self.m *= b1
        self.m += (1.0 - b1) * gradient
        self.v *= b2
        self.v += gradient * gradient * (1.0 - b2)
        vector[self.decayed] *= 1.0 - rate * self.weight_decay
        root = np.sqrt(self.v) * (1.0 / math.sqrt(1.0 - b2**self.t)) + self.eps
        vector -= self.m / root * (rate / (1.0 - b1**self.t))


class SGD:
    """Plain gradient descent, ``w = w - lr * g``: no moments, no decay.

    Adam gives every weight a step of the same size however small its gradient; without that, sinks form late or not at
    all (Guo et al., arXiv:2410.13835, section 3).
    """

    def step(self, vector, gradient, rate):
        """Change `vector` as `AdamW.step` does."""
        vector -= gradient * rate


@one_thread()
def clip(gradient, largest):
    """Scale a gradient down, in place, to a norm of at most `largest`; return the norm it had.

    >>> g = np.array([3.0, 4.0])
    >>> clip(g, 1.0), g.round(2).tolist()
    (5.0, [0.6, 0.8])
    """
    norm = math.sqrt(float(gradient @ gradient))
    if norm > largest:
        gradient *= largest / norm
    return norm
