"""The trigger task, where a sink is provable: `task`, `weights` (scores to weights, six ways), `toy` (the model)."""
