"""The same numbers at memory speed: `blocks` for a text; `ring`, `fused` and `decoder` for a token."""
