"""Training: how a sink is learned.

Files in reading order: `backward` (each function's gradient beside its equation), `attention` (the same for
attention over a batch), `llama` and `gpt2` (one forward and one backward pass each), `parameters` (all weights
in one vector), `gradients` (a batch in pieces), `optimizer`, `tokens`, `data`, `recipe`, `state`, `log`,
`loop`, for a language model. `toy` is what the classroom's experiments share, `backcopy/` (a sink grows) and
`induction/` (what is forgotten, and comes back).

A leading batch axis exists only here. Letters: B samples, T tokens a sample, N = B * T rows, and those of the
rest of the package.
"""
