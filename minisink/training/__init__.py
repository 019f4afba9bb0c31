"""Training: how a sink is learned.

Files in reading order: `backward` (each function with its gradient), `attention` (the same for attention over a batch),
`passes` (a model's forward and backward pass), `parameters` (all weights in one vector), `gradients` (a batch in
pieces), `optimizer`, `tokens`, `data`, `recipe`, `state`, `log`, `loop`, for a language model. `toy` is what the
classroom's experiments share: `backcopy/` (a sink grows) and `induction/` (what is forgotten, and comes back).

A leading batch axis exists only here. Letters: B samples, T tokens per sample, N = B * T rows, and those of the rest of
the package.
"""
