"""The settings of one training run; those of the model are in its config."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Settings found to grow a sink in a small model within an hour on one core."""

    n_steps: int = 2460
    batch: int = 64  # samples per step
    context: int = 128  # tokens per sample
    rate: float = 4e-3  # peak learning rate
    warmup: int = 100  # steps
    decay: float = 0.3  # share of the steps, at the end, over which the rate falls to 0
    weight_decay: float = 0.1
    betas: tuple = (0.9, 0.95)
    clip: float = 1.0  # largest norm of the gradient
    std: float = 0.04  # standard deviation of the initial weights
    sample_start: str = "bos"  # or "none"
    shared: bool = False  # whether input and output matrix are one, except for <s>: see `parameters.share`
    seed: int = 0  # of the initial weights and of the samples

    def __post_init__(self):
        least = {"n_steps": 1, "batch": 1, "context": 4, "warmup": 0, "weight_decay": 0, "seed": 0}
        for name, lowest in least.items():
            if not lowest <= (value := getattr(self, name)) < float("inf"):
                why = ", because the cache measured is half of it" if name == "context" else ""
                raise ValueError(f"{name} is {value}; it must be {lowest} or more{why}")
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"learning rate is {self.rate}; it must be a number above 0")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay is {self.decay}; it is a share of the steps, 0 to 1")
        if self.sample_start not in ("bos", "none"):
            raise ValueError(f"sample_start is {self.sample_start!r}; it must be 'bos' or 'none'")
