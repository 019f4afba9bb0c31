"""transformers with a custom sink cache: its own model and DynamicCache, with layers that evict."""

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


class SinkLayer(DynamicLayer):
    """Keys stay rotated to their places in the text; the sinks are rotated forward by the number of evicted tokens."""

    def __init__(self, n_sinks, window, rotary):
        super().__init__()
        self.n_sinks, self.window, self.rotary, self.cumulative_length = n_sinks, window, rotary, 0

    def update(self, key_states, value_states, *args, **kwargs):
        keys, values = super().update(key_states, value_states)
        self.cumulative_length += key_states.shape[-2]
        n = keys.shape[-2]
        stay = [i for i in range(n) if i < self.n_sinks or i >= n - self.window]
        self.keys, self.values = keys[:, :, stay], values[:, :, stay]
        moved = torch.tensor([[self.cumulative_length - len(stay) if i < self.n_sinks else 0 for i in stay]])
        return apply_rotary_pos_emb(self.keys, self.keys, *self.rotary(keys, moved))[1], self.values

    def get_seq_length(self):
        return self.cumulative_length  # the place in the text of the next token

    def get_mask_sizes(self, query_length):
        n = min(super().get_seq_length() + query_length, self.n_sinks + self.window)
        return n, self.cumulative_length + query_length - n  # how many keys `update` returns, and the first's place


@torch.no_grad()
def losses_of(model, ids, n_sinks, window, chunk=1, layer=SinkLayer):
    """Return the nats of each token but the first: in chunks while they fit, then token by token."""
    cache, text, chunk = DynamicCache(), torch.tensor(ids), min(chunk, n_sinks + window)
    cache.layers = [layer(n_sinks, window, model.model.rotary_emb) for _ in model.model.layers]
    fit = min(n_sinks + window, len(ids) - 1) // chunk * chunk
    parts = *text[:fit].split(chunk), *text[fit:-1].split(1)
    logits = torch.cat([model(part[None], past_key_values=cache).logits[0] for part in parts if len(part)])
    return torch.nn.functional.cross_entropy(logits, text[1:], reduction="none").numpy()
