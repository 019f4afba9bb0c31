"""The Bigram-Backcopy task, on which a sink grows in seconds: `chain` (the task) and `toy` (the model)."""
