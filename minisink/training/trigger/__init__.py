"""The trigger task, which provably needs a sink: `task`, `weights` (scores to weights, six ways), `toy` (the model)."""
