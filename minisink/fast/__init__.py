"""The same numbers at memory speed: `blocks` for a given text, `ring`, `fused` and `decoder` for token after token."""
