"""The same numbers at memory speed: `blocks` for a text, `ring`, `fused`, `decoder` for a token."""
