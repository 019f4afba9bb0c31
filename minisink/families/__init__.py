"""The other families of the paper: GPT-2's skeleton with other parts, which `skeleton` runs; one architecture a file.

`llama` and `gpt2` on the shelf are the lesson; these differ from them in a few lines each, and in what they do about
positions: `gpt_neox` (Pythia) rotates a part of every head, `falcon` shares one key among all heads, `mpt` rotates
nothing and takes a slope times the distance off each score.
"""
