"""The perplexity of a text of any size: cut (`pieces`), counted (`tally`), resumed (`run`), in parts (`parts`)."""
