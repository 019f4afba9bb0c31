"""Training: how a sink is learned.

Files in reading order: `backward` (each function with its gradient), `attention` (the same for attention over a batch),
`passes` (a model's forward and backward pass), `parameters` (all weights in one vector), `gradients` (a batch in
pieces), `optimizer`; then, for a language model, `tokens`, `data`, `recipe`, `state`, `log`, `loop`. `toy` is what the
classroom's experiments share: `backcopy/` (a sink grows) and `induction/` (what is forgotten, and comes back).

A leading batch axis exists only here. Letters: B samples, T tokens per sample, N = B * T rows, and otherwise those used
in the rest of the package.
"""
