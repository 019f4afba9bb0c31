"""Bring back what was evicted: the fifth method, the paper's future work.

StreamingLLM forgets whatever leaves its window. Here it is kept and looked up (InfLLM, arXiv:2402.04617, simplified;
with blocks of one token, LM-Infinite, arXiv:2308.16137; no training):

1. When a token leaves the window, its un-rotated key and its value go to a *store*, in blocks of `block` tokens.
2. Every query is scored against every stored key, *as if all of them were `window` tokens back*.
3. The `n_blocks` blocks with the best keys are *fetched*, separately for each query, layer and head.
4. One softmax runs over all three: sinks, fetched blocks and window.

Two sinks, a window of three, blocks of two, one of them fetched; the query is token 9::

                 sinks | fetched |  window          the store: [2 3] [4 5] [6 .]
    slot          0  1 |         |  2  3  4
    token_index   0  1 |  4   5  |  7  8  9
    position      0  1 |  1   1  |  2  3  4         1 = n_sinks - 1 is `window` tokens back

So fetched tokens are never nearer than the window or farther than a trained distance, and sinks and window have
their StreamingLLM positions. A query attends to at most ``n_sinks + n_blocks * block + window`` keys. **Total memory
and the search are not bounded**: the store grows with the text and every query reads its keys, unless ``store=N`` keeps
only the newest N evicted tokens.
"""

from .cache import RetrievalCache
from .method import Retrieval

__all__ = ["Retrieval", "RetrievalCache"]
