"""The Bigram-Backcopy task, on which a sink grows in seconds: `chain` (the task), `toy` (the model), `picture`."""
