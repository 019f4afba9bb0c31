"""The perplexity of a text of any size: cut (`pieces`), read (`token_reader`), counted (`tally`), resumed (`run`)."""
