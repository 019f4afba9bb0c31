"""The same numbers at memory speed: `blocks` for a text, `ring`, `fused`, `decoder` for tokens, `retrieval` for both."""
