"""The trigger task, where a sink can be proved: `task`, `weights` (scores to weights, six ways), `toy` (the model)."""
