"""The other families of the paper: GPT-2's skeleton with other parts, which `skeleton` runs; one architecture per file.

`llama` and `gpt2`, on the shelf, are those to study; these differ from them in a few lines each, and in how they treat
positions: `gpt_neox` (Pythia) rotates part of every head, `falcon` shares one key among all heads, `mpt` rotates
nothing and subtracts a slope times the distance from each score.
"""
