"""One attention head, some 800 parameters, that learns the trigger task; forward and backward on one page.

::

    q, k, v = x wq, x wk, x wv      pattern = weigh(q k^T)      y = pattern v      (gate: y * sigmoid(x wg))

No 1 / sqrt(D), no residual, no norm, no positions: what is left is what the proof is about.
"""

import numpy as np

from ...system.threads import one_thread
from ..optimizer import AdamW
from ..parameters import n_parameters, views
from . import task, weights

BATCH, ENOUGH = 128, 5e-3  # texts per step; the error at which training ends


class Toy:
    """The head, and its training by Adam at a `rate`; `seed` is for weights and texts.

    `kind`, one of `weights.KINDS`, says how scores become weights; a text has `length` tokens (T), BOS included;
    queries and keys have `head_dim` channels (D).
    """

    def __init__(self, kind, *, length=16, head_dim=16, rate=1e-3, seed=0, dtype=np.float32):
        if kind not in weights.KINDS:
            raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(weights.KINDS)}")
        if head_dim < 1:
            raise ValueError(f"the width of a head is {head_dim}; it must be 1 or more")
        C, D = task.WIDTH, head_dim
        self.kind, self.length, self.rate = kind, length, rate
        extra: dict = {"gate": {"wg": (C, C)}, "logit": {"sink": (1,)}}
        self.shapes = {"wq": (C, D), "wk": (C, D), "wv": (C, C)} | extra.get(kind, {})
        self.vector = (np.random.default_rng([seed, 0]).standard_normal(n_parameters(self.shapes)) * 0.02).astype(dtype)
        self.random = np.random.default_rng([seed, 1])
        self.watched = task.draw(np.random.default_rng([seed, 2]), BATCH, length, dtype)  # not learned from
        self.mask = np.tri(length, dtype=bool)
        self.optimizer = AdamW(self.vector, slice(0), betas=(0.9, 0.95), weight_decay=0.0)

    def forward(self, x):
        """Return answers (B, T, C) to texts (B, T, C), and what the backward pass needs."""
        w = views(self.vector, self.shapes)
        rows = x.reshape(-1, x.shape[-1])  # (B, T, C) -> (B * T, C): one large product instead of B small ones
        q, k, v = ((rows @ w[name]).reshape(*x.shape[:2], -1) for name in ("wq", "wk", "wv"))
        scores = q @ k.swapaxes(1, 2)  # (B, T, D) @ (B, D, S) -> (B, T, S)
        sink = float(w["sink"][0]) if "sink" in w else 0.0
        pattern = weights.weigh(scores, self.mask, self.kind, sink)
        mixed = pattern @ v
        gate = 1.0 / (1.0 + np.exp(-(rows @ w["wg"]).reshape(x.shape))) if "wg" in w else None
        saved = {"q": q, "k": k, "v": v, "scores": scores, "pattern": pattern, "mixed": mixed, "gate": gate}
        return mixed if gate is None else mixed * gate, saved

    def gradient(self, x, target):
        """Compute the mean squared error and its gradient, (P,)."""
        y, saved = self.forward(x)
        error = y - target
        gradient = np.zeros_like(self.vector)
        into = views(gradient, self.shapes)
        rows = x.reshape(-1, x.shape[-1])
        dmixed = error * (2.0 / error.size)
        if saved["gate"] is not None:
            slope = saved["gate"] * (1.0 - saved["gate"])
            into["wg"][...] = rows.T @ (dmixed * saved["mixed"] * slope).reshape(len(rows), -1)
            dmixed = dmixed * saved["gate"]
        pattern, scores = saved["pattern"], saved["scores"]
        dpattern = dmixed @ saved["v"].swapaxes(1, 2)
        dscores, dsink = weights.weigh_backward(dpattern, pattern, scores, self.mask, self.kind)
        into["wv"][...] = rows.T @ (pattern.swapaxes(1, 2) @ dmixed).reshape(len(rows), -1)
        into["wq"][...] = rows.T @ (dscores @ saved["k"]).reshape(len(rows), -1)
        into["wk"][...] = rows.T @ (dscores.swapaxes(1, 2) @ saved["q"]).reshape(len(rows), -1)
        if "sink" in into:
            into["sink"][...] = dsink
        return float((error * error).mean()), gradient

    @one_thread()
    def train(self, n_steps, every=100):
        """Train until the largest error on watched texts is small enough, or for `n_steps`; return the steps taken."""
        for step in range(n_steps):
            if step % every == 0 and self.look()["error"] < ENOUGH:
                return step
            x, target, _ = task.draw(self.random, BATCH, self.length, self.vector.dtype)
            loss, gradient = self.gradient(x, target)
            if not np.isfinite(loss):
                raise ValueError(f"step {step + 1}: the loss is {loss}; a lower rate may help")
            self.optimizer.step(self.vector, gradient, self.rate)
        return n_steps

    def look(self):
        """Measure the head on texts that it does not learn from.

        Return the mean squared error as ``"loss"``, the largest ``"error"``, the weight on BOS from ordinary tokens,
        ``"idle"``, and from the trigger, ``"busy"``, and the norm of BOS's ``"value"`` relative to other tokens' mean.
        """
        x, target, trigger = self.watched
        y, saved = self.forward(x)
        error = np.abs(y - target)
        on_bos = saved["pattern"][:, :, 0]  # (B, T)
        busy = np.arange(self.length) == trigger[:, None]
        idle = ~busy & (np.arange(self.length) > 0)  # not BOS, which sees only itself
        size = np.sqrt((saved["v"] ** 2).sum(axis=-1))
        look = {"loss": (error**2).mean(), "error": error.max(), "idle": on_bos[idle].mean()}
        look |= {"busy": on_bos[busy].mean(), "value": size[:, 0].mean() / size[:, 1:].mean()}
        return {name: float(value) for name, value in look.items()}
