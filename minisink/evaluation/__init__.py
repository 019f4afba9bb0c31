"""The perplexity of a text of any size: cut (`pieces`), handed on (`tape`), counted (`tally`), gone on with (`run`)."""
