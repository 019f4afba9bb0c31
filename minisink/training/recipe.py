"""The numbers of one training, beside those of the model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What was found to grow a sink in a small model within an hour of one core."""

    n_steps: int = 2460
    batch: int = 64  # samples a step
    context: int = 128  # tokens a sample
    rate: float = 4e-3  # peak learning rate
    warmup: int = 100  # steps
    decay: float = 0.3  # share of the steps, at the end, over which the rate falls to 0
    weight_decay: float = 0.1
    betas: tuple = (0.9, 0.95)
    clip: float = 1.0  # largest norm of the gradient
    std: float = 0.04  # deviation of the initial weights
    sample_start: str = "bos"  # or "none"
    shared: bool = False  # input and output matrix are one except the input vector of <s>: see `parameters.share`
    seed: int = 0  # of the initial weights and of the samples

    def __post_init__(self):
        for name in ("n_steps", "batch", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.context < 4:
            raise ValueError(f"context is {self.context}; it must be 4 or more: the cache watched is half of it")
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"learning rate is {self.rate}; it must be a number above 0")
        for name in ("warmup", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay is {self.decay}; it is a share of the steps, 0 to 1")
        if self.sample_start not in ("bos", "none"):
            raise ValueError(f"sample_start is {self.sample_start!r}; it must be 'bos' or 'none'")
