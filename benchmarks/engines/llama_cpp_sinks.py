"""llama.cpp, with its own calls trimming its cache: one token per new token, or half of the window at once."""

import llama_cpp
import numpy as np


def losses_of(path, ids, n_sinks, window, chunk=1, leave=1, shift=True, dtype=llama_cpp.GGML_TYPE_F32):
    """Return the nats of each token but the first, from a GGUF file: in chunks while they fit, then token by token.

    A full cache drops `leave` keys, and all the keys behind them move down, or with shift=False keep their places in
    the text.
    """
    llama = llama_cpp.Llama(path, n_ctx=1024, type_k=dtype, type_v=dtype, logits_all=True, verbose=False)
    cache, capacity, held, gone, losses = llama_cpp.llama_get_memory(llama.ctx), n_sinks + window, 0, 0, []
    while len(losses) < len(ids) - 1:
        if held == capacity:
            first, held = n_sinks + gone, held - leave
            llama_cpp.llama_memory_seq_rm(cache, 0, first, first + leave)
            if shift:
                llama_cpp.llama_memory_seq_add(cache, 0, first + leave, -1, -leave)
                llama.n_tokens -= leave
            else:
                gone += leave
        t = len(losses)
        n = min(chunk if held + chunk <= capacity else 1, len(ids) - 1 - t)
        llama.eval(ids[t : t + n])
        logits = llama.scores[llama.n_tokens - n : llama.n_tokens].astype(float)
        losses += (np.logaddexp.reduce(logits, axis=1) - logits[range(n), ids[t + 1 : t + n + 1]]).tolist()
        held += n
    llama.close()
    return losses
