"""The other families of the paper: GPT-2's skeleton with other parts, which `skeleton` runs; one in each file."""
