"""The same numbers at memory speed: `blocks` for a whole text; `ring`, `fused` and `decoder` for a single token."""
