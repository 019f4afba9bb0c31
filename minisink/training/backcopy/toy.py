"""A one-head model that learns the Bigram-Backcopy task of `chain`, and what can be seen inside it meanwhile."""

import numpy as np

from ...loss import nll_of, token_nll
from ...methods import Dense, Streaming, Window
from ...system.device import to_host
from .. import toy
from ..optimizer import Schedule
from .chain import BOS

# Peak learning rates that work. ReLU's weights need not sum to one, so it tolerates less.
RATES = {"softmax": 5e-2, "softmax1": 5e-2, "logit": 5e-2, "relu": 2e-3, "sgd": 1.0}


class Toy(toy.Toy):
    """A small model that learns the task; other `options` are those of `training.toy.Toy`.

    `kind` is "softmax", "softmax1", "relu" or "logit", which is softmax with a learned sink logit. The peak learning
    `rate` is one of `RATES` by default.
    """

    def __init__(self, task, *, kind="softmax", n_layers=1, n_steps=1200, length=64, rate=None, **options):
        weights = {"sink_logit": True} if kind == "logit" else {"softmax": kind}
        text = {"vocab_size": len(task.table), "max_positions": length, "bos": BOS if task.starts_with_bos else None}
        config = toy.attention_only(n_layers=n_layers, n_heads=1, **weights, **text)
        rate = rate or RATES["sgd" if options.get("optimizer") == "sgd" else kind]
        schedule = Schedule(rate, n_steps, warmup=20, decay=0.7, final=0.1)
        super().__init__(config, schedule, std=0.05, weight_decay=0.1, **options)
        self.task, self.length = task, length
        self.watched = task.draw(self.random_watched, 64, length + 1)  # the same texts all along
        self.floor = task.floor(length)

    def draw(self):
        """Texts of the chain."""
        return self.task.draw(self.random, self.batch, self.length + 1)[0]

    def look(self):
        """Measure the model on texts it does not learn from.

        Return ``loss`` and ``floor`` in nats per token; the mean weight on the first token, ``bos_from_nontrigger`` and
        ``bos_from_trigger``; the norm of its value over the mean of the others', ``value_ratio``; and which ``layer``
        these are of, the one with the strongest sink. The loss is the floor plus what the model loses to the chain
        itself *on the same texts*, which removes the effect of chance.
        """
        ids, nll = self.watched
        inputs, targets = ids[:, :-1], ids[:, 1:]
        logits, saved = self.forward(inputs)
        trigger = self.task.is_trigger(inputs)
        # not query 0, which sees only itself, nor query 1: without BOS a trigger there looks back at the first token
        from_trigger, from_other = trigger[:, 2:], ~trigger[:, 2:]
        layers = []
        for i, layer in enumerate(saved["layers"]):
            on_first = to_host(layer["pattern"][:, 0, 2:, 0])  # (B, T - 2)
            size = to_host(np.sqrt((layer["v"][:, :, 0] ** 2).sum(axis=-1)))  # (B, T)
            idle, busy = float(on_first[from_other].mean()), float(on_first[from_trigger].mean())
            value = float(size[:, 0].mean() / size[:, 1:].mean())
            layers.append({"bos_from_nontrigger": idle, "bos_from_trigger": busy, "value_ratio": value, "layer": i})
        over = nll_of(logits, targets.reshape(-1)).mean(dtype=np.float64) - nll[:, 1:].mean()
        strongest = max(layers, key=lambda each: each["bos_from_nontrigger"])
        return {"loss": self.floor + float(over), "floor": self.floor} | strongest

    def stream(self, n_texts=4, n_tokens=1000, seed=0):
        """Measure the loss on texts many times as long as those it learned from, with the caches of StreamingLLM.

        Return nats per token, over the same floor as in `look`: ``dense_nll``; ``window_nll`` with the trained length
        as window; ``streaming_nll`` with the same number of keys, one of them the first token.
        """
        methods = Dense(), Window(self.length), Streaming(1, self.length - 1)
        above = {m.name: self.above_floor(m, n_texts, n_tokens, seed) for m in methods}
        return {f"{name}_nll": self.floor + float(nats.mean()) for name, nats in above.items()}

    def above_floor(self, method, n_texts=4, n_tokens=1000, seed=0):
        """Return by how much each token of the texts of `stream` costs more than the floor: (n_texts, n_tokens - 1)."""
        ids, floor = self.task.draw(np.random.default_rng([seed, 3]), n_texts, n_tokens)
        model = self.as_model("backcopy")
        return np.array([token_nll(model, text, method) for text in ids], np.float64) - floor[:, 1:]
