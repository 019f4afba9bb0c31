"""A one-head model that learns the Bigram-Backcopy task of `chain`, and what can be seen inside it as it does."""

from functools import partial

import numpy as np

from ...loss import nll_of, token_nll
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
        draw = partial(task.draw, length=length + 1)
        super().__init__(config, lambda random, n: draw(random, n)[0], schedule, std=0.05, weight_decay=0.1, **options)
        self.task = task
        self.watched = draw(self.random_watched, 64)  # the same texts throughout
        self.floor = task.floor(length)

    def look(self):
        """Measure the model on texts it does not learn from.

        Return ``loss`` and ``floor`` in nats per token; the mean weight on the first token, ``bos_from_nontrigger`` and
        ``bos_from_trigger``; the norm of its value relative to the other tokens' mean, ``value_ratio``; and the
        ``layer`` they come from, the one with the strongest sink. The loss is the floor plus what the model loses to
        the chain itself *on the same texts*, which removes the effect of chance.
        """
        ids, nll = self.watched
        inputs, targets = ids[:, :-1], ids[:, 1:]
        logits, layers = self.forward(inputs)
        # not query 0, which sees only itself, nor query 1: without BOS a trigger there looks back at the first token
        trigger = self.task.is_trigger(inputs[:, 2:])
        on_first = [to_host(layer["pattern"][:, 0, 2:, 0]) for layer in layers]  # (B, T - 2) each
        idle, busy = ([float(weight[queries].mean()) for weight in on_first] for queries in (~trigger, trigger))
        i = int(np.argmax(idle))
        size = to_host(np.sqrt((layers[i]["v"][:, :, 0] ** 2).sum(axis=-1)))  # (B, T)
        over = nll_of(logits, targets.reshape(-1)).mean(dtype=np.float64) - nll[:, 1:].mean()
        look = {"loss": self.floor + float(over), "floor": self.floor, "bos_from_nontrigger": idle[i]}
        look |= {"bos_from_trigger": busy[i], "value_ratio": float(size[:, 0].mean() / size[:, 1:].mean())}
        return look | {"layer": i}

    def above_floor(self, method, n_texts=4, n_tokens=1000, seed=0):
        """Return how much more than the floor each token of long texts costs: (n_texts, n_tokens - 1) nats.

        The texts are many times as long as those that the model learned from.
        """
        ids, floor = self.task.draw(np.random.default_rng([seed, 3]), n_texts, n_tokens)
        model = self.as_model("backcopy")
        return np.array([token_nll(model, text, method) for text in ids], np.float64) - floor[:, 1:]
