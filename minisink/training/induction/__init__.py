"""Text that is read twice: `segments` (the task), `toy` (the model), `gaps` (what each method remembers)."""
