// A lane is a model and one cache; its step is an object of the contract, minisink-step/1 (docs/live.md), the same that
// steps.py makes in Python.

import { KVCache, dot, forward } from "./engine.mjs";

export class Lane {
  constructor(model, policy) {
    Object.assign(this, { model, policy, cache: new KVCache(model.config.n_layers, policy), logits: null });
  }

  read(id) {  // -> loss of the token in nats, predicted before it was read
    const trace = {}, before = this.logits, logits = forward(id, this.model, this.cache, trace);
    Object.assign(this, { id, trace, logits, nll: before && nll(before, id) });
    return this.nll;
  }

  copy() {
    return Object.assign(new Lane(this.model, this.policy), this, { cache: this.cache.copy() });
  }

  step() {
    const { model: { config, tokenizer }, policy: { capacity, ...method }, cache, trace, id } = this;
    const { token_index, positions, evicted, n_seen } = cache.layers.at(-1), D = config.head_dim;
    const role = (t) => (t === n_seen - 1 ? "newest" : t < method.n_sinks ? "sink" : "window");
    const norm = (x) => Math.sqrt(dot(x, x, 0, 0, x.length)), layers = trace.layers;
    const norms = (name) => layers.map((layer) => heads(layer[name], D).map(norm));
    return {
      schema: "minisink-step/1", model: config.name, ...method,
      window: method.window === Infinity ? null : method.window,  // dense has none
      t: n_seen - 1, id, text: tokenizer.text(id), nll: this.nll,
      slots: token_index.map((token, slot) => ({ token, position: positions[slot], role: role(token) })), evicted,
      pattern: layers.map(({ pattern }) => pattern.map((row) => [...row])),  // (L, H, S)
      norms: { residual: layers.map(({ x }) => norm(x)), key: norms("k"), value: norms("v") },  // of the newest token
      fetched: method.n_blocks === undefined ? null : layers.map(({ fetched }) => fetched),
      top: top(this.logits).map(([id, p]) => ({ id, text: tokenizer.text(id), p })),
    };
  }
}

const heads = (x, D) => Array.from({ length: x.length / D }, (_, h) => x.subarray(h * D, h * D + D));

function log_sum(logits) {  // log sum_j exp(x_j), without overflow
  const largest = logits.reduce((a, b) => Math.max(a, b));
  return largest + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - largest), 0));
}

const nll = (logits, id) => log_sum(logits) - logits[id];

function top(logits, n = 5) {  // the likeliest next tokens: [id, probability]
  const total = log_sum(logits), order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
  return order.slice(0, n).map((id) => [id, Math.exp(logits[id] - total)]);
}
