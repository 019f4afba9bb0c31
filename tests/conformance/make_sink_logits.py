"""Train the sink logits of novels-softmax1, and nothing else of it.

    python tests/conformance/make_sink_logits.py

prints them, four heads in each of four layers. Softmax1 is a sink logit of 0 in every head, so there they begin; all
other weights are frozen, as they came. The text is weights/sample.txt from token 600 on: the golden losses are of what
comes before. 300 steps of 8 samples of 128 tokens, AdamW at 0.01, seed 0; rounded to 1/64, so that half precision holds
them and another machine finds the same, or a neighbour. One minute on one core.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import minisink
from minisink.hf.shipped import sample_text
from minisink.training.gradients import batch_gradient
from minisink.training.optimizer import AdamW
from minisink.training.parameters import n_parameters, named_shapes, views

STEPS, SAMPLES, LENGTH, RATE = 300, 8, 128, 0.01
HELD_OUT = 600  # tokens at the start of the text


def train(n_steps=STEPS):
    """Return the sink logits (L, H), and the mean losses of the steps."""
    model = minisink.load("novels-softmax1")
    config = replace(model.config, softmax="softmax", sink_logit=True)
    text = model.encode(sample_text().read_text(encoding="utf-8"))[HELD_OUT:]
    vector = np.zeros(n_parameters(named_shapes(config)), np.float32)
    weights = views(vector, named_shapes(config))
    for name, array in model.arrays().items():
        weights[name][...] = array
    learned = np.zeros((config.n_layers, config.n_heads), np.float32)
    optimizer, random = AdamW(learned, slice(0), weight_decay=0.0), np.random.default_rng(0)
    losses = []
    for _ in range(n_steps):
        starts = random.integers(0, len(text) - LENGTH, SAMPLES)
        samples = text[starts[:, None] + np.arange(LENGTH + 1)]
        loss, gradient = batch_gradient(config, vector, samples[:, :-1], samples[:, 1:])
        of_layers = views(gradient, named_shapes(config))
        slopes = np.array([of_layers[f"{i}.sink_logits"] for i in range(config.n_layers)])
        optimizer.step(learned, slopes, RATE)
        for i, logits in enumerate(learned):
            weights[f"{i}.sink_logits"][...] = logits
        losses.append(loss)
    return np.round(64 * learned) / 64, losses


if __name__ == "__main__":
    found, losses = train()
    print(f"mean loss of the first 50 steps {np.mean(losses[:50]):.3f}, of the last 50 {np.mean(losses[-50:]):.3f}")
    print(found.tolist())
