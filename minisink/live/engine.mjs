// StreamingLLM in plain JavaScript, one token at a time: T = 1 everywhere, so (T, H, D) is (H, D) here.
//
// Read it next to the Python it is tested against (tests/live): ../cache.py (`Policy`, `LayerCache`, `KVCache`),
// ../attention.py (`attend`), ../retrieval/cache.py (`fetch`), ../llama.py and ../gpt2.py. The names are the same.
// Arrays are flat, the last axis fastest, in float64; weights stay in float32. Letters: S visible keys, H query heads,
// K key/value heads, D width of a head, C width of the model, F width of the MLP, V vocabulary.

// Which tokens stay, which position they get (cache.py) -------------------------------------------

export class Policy {
  constructor(method, n_sinks, window, positions = "slot") {
    Object.assign(this, { method, n_sinks, window, positions, capacity: n_sinks + window });
  }

  survivors(token_index) {  // (S,) -> slots that stay
    const stay = token_index.map((_, slot) => slot), S = stay.length;
    return S <= this.capacity ? stay : stay.filter((slot) => slot < this.n_sinks || slot >= S - this.window);
  }

  positions_of(token_index) {  // (S,) -> (S,)
    const { n_sinks: s, window: W } = this;
    if (this.positions === "slot") return token_index.map((_, slot) => slot);  // StreamingLLM: position := slot
    if (this.positions === "original") return token_index;  // place in the text
    return token_index.map((t) => (t < s ? t : s + ((t - s) % (2 * W))));  // "modulo": a ring of twice the window
  }
}

export const Dense = (positions) => new Policy("dense", 0, Infinity, positions);
export const Window = (window, positions) => new Policy("window", 0, window, positions);
export const Streaming = (n_sinks, window, positions) => new Policy("streaming", n_sinks, window, positions);
export const Retrieval = (n_sinks, window, positions, n_blocks = 2, block = 4) =>
  Object.assign(new Policy("retrieval", n_sinks, window, positions), { n_blocks, block, select: "best", store: null });

class LayerCache {  // keys (un-rotated) and values of one layer, S of (K, D) each, in slot order
  constructor(policy) {
    Object.assign(this, { policy, keys: [], values: [], token_index: [], n_seen: 0, store: [], evicted: [] });
  }

  append(key, value) {  // (K, D), (K, D): evict before attending
    const keys = [...this.keys, key], values = [...this.values, value], index = [...this.token_index, this.n_seen++];
    const stay = this.policy.survivors(index);
    const leave = index.length === stay.length ? [] : [...index.keys()].filter((slot) => !stay.includes(slot));
    this.evicted = leave.map((slot) => index[slot]);
    if (this.policy.n_blocks) for (const slot of leave) this.store.push([keys[slot], values[slot], index[slot]]);
    [this.keys, this.values, this.token_index] = [keys, values, index].map((held) => stay.map((slot) => held[slot]));
  }

  get positions() {
    return this.policy.positions_of(this.token_index);
  }
}

export class KVCache {
  constructor(n_layers, policy) {
    this.policy = policy;
    this.layers = Array.from({ length: n_layers }, () => new LayerCache(policy));
  }

  next_position() {  // of the next token, when it is the newest
    const { token_index, n_seen } = this.layers[0], index = [...token_index, n_seen];
    return this.policy.positions_of(this.policy.survivors(index).map((slot) => index[slot])).at(-1);
  }

  copy() {  // the arrays of a layer never change, except its store
    const copy = new KVCache(0, this.policy);
    copy.layers = this.layers.map((layer) => Object.assign(new LayerCache(), layer, { store: [...layer.store] }));
    return copy;
  }
}

// Attention (attention.py, positions.py, ops.py) --------------------------------------------------

export const dot = (a, b, from_a, from_b, D) => {
  let sum = 0;
  for (let d = 0; d < D; d++) sum += a[from_a + d] * b[from_b + d];
  return sum;
};

export function rotation(config) {  // a function rotate(x, position): (heads, D) -> (heads, D)
  if (config.model_type === "gpt2") return (x) => x;  // its positions are added to the embedding
  const D = config.head_dim, half = D / 2, tables = new Map();
  return (x, position) => {
    if (x.position === position) return x.rotated;  // dense: a key keeps its position
    const of = (f) => Float64Array.from(config.frequencies, (w) => f(position * w));  // (D/2,)
    if (!tables.has(position)) tables.set(position, [of(Math.cos), of(Math.sin)]);
    const [cos, sin] = tables.get(position), out = new Float64Array(x.length);
    for (let h = 0; h < x.length; h += D) {
      for (let j = 0; j < half; j++) {  // channels j and j + D/2: (a, b) -> (a cos - b sin, b cos + a sin)
        const a = x[h + j], b = x[h + j + half];
        out[h + j] = a * cos[j] - b * sin[j];
        out[h + j + half] = b * cos[j] + a * sin[j];
      }
    }
    return Object.assign(x, { position, rotated: out }).rotated;
  };
}

export function normalise(scores, kind, sink) {  // (S,) -> (S,), in place
  if (kind === "relu" && sink === undefined) return scores.forEach((x, s) => { scores[s] = Math.max(x, 0); });
  sink ??= kind === "softmax1" ? 0 : -Infinity;  // softmax1: an extra score of zero, without key or value
  const largest = scores.reduce((a, b) => Math.max(a, b), sink);
  let total = Math.exp(sink - largest);  // the sink logit competes, and its weight is dropped
  for (let s = 0; s < scores.length; s++) total += scores[s] = Math.exp(scores[s] - largest);
  for (let s = 0; s < scores.length; s++) scores[s] /= total;
}

function mix(q, k, v, layer, rotate, config, sink_logits, trace) {  // (H, D), 2 x (K, D) -> (H, D)
  const { n_heads: H, n_kv_heads: K, head_dim: D } = config;
  layer.append(k, v);  // and evict
  const positions = layer.positions, S = positions.length, mixed = new Float64Array(H * D);
  const keys = layer.keys.map((key, s) => rotate(key, positions[s])), query = rotate(q, positions[S - 1]);
  const stored = stored_keys(layer, q, rotate);
  trace.pattern = [];
  trace.fetched = layer.policy.n_blocks === undefined ? null : [];
  for (let h = 0; h < H; h++) {
    const kv = Math.floor(h * K / H) * D;  // H / K neighbouring heads share a key head
    const score = (q, key) => dot(q, key, h * D, kv, D) / Math.sqrt(D);
    const fetched = fetch(stored.keys.map((key) => score(stored.query, key)), layer);
    const scores = new Float64Array(S + fetched.length);
    keys.forEach((key, s) => { scores[s] = score(query, key); });
    scores.set(fetched.map(([x]) => x), S);
    normalise(scores, config.softmax, sink_logits?.data[h]);  // (S + F,)
    const values = [...layer.values, ...fetched.map(([, i]) => layer.store[i][1])];
    values.forEach((v, s) => { for (let d = 0; d < D; d++) mixed[h * D + d] += scores[s] * v[kv + d]; });
    trace.pattern.push(scores.subarray(0, S));
    trace.fetched?.push(fetched.map(([, i], f) => ({ token: layer.store[i][2], weight: scores[S + f] })));
  }
  return mixed;
}

// Retrieval (retrieval/cache.py): bring back what was evicted -------------------------------------

function stored_keys(layer, q, rotate) {  // the query is `window` tokens after every stored key
  const { policy, store, n_seen } = layer;
  if (policy.positions !== "original") return { query: rotate(q, policy.window), keys: store.map(([key]) => key) };
  return { query: rotate(q, n_seen - 1), keys: store.map(([key, , t]) => rotate(key, t)) };
}

function fetch(scores, layer) {  // of the stored keys -> [score, place in the store] of the keys in the best blocks
  const { n_blocks, block } = layer.policy, best = [];
  if (!n_blocks) return [];
  scores.forEach((x, i) => { best[Math.floor(i / block)] = Math.max(best[Math.floor(i / block)] ?? -Infinity, x); });
  const last = [...best].sort((a, b) => b - a)[Math.min(n_blocks, best.length) - 1];
  const step = (b) => Math.round((best[b] - last) * 512);  // scores within 1/1024 of the last are equal
  const top = [...best.keys()].sort((a, b) => step(b) - step(a) || b - a).slice(0, n_blocks);  // ties: the newer
  return scores.map((x, i) => [x, i]).filter(([, i]) => top.includes(Math.floor(i / block)));
}

// Llama and GPT-2, top to bottom (llama.py, gpt2.py, ops.py) --------------------------------------

function linear(x, w, b) {  // (C,), (F, C), (F,) -> (F,); files.mjs has made each column of (C, F) contiguous
  const [F, C] = w.shape, out = new Float64Array(F), W = w.data;
  let f = 0;
  for (; f + 3 < F; f += 4) {  // four at a time, so that x is read once for all of them
    const r0 = f * C, r1 = r0 + C, r2 = r1 + C, r3 = r2 + C;
    let y0 = 0, y1 = 0, y2 = 0, y3 = 0;
    for (let c = 0; c < C; c++) {
      y0 += x[c] * W[r0 + c];
      y1 += x[c] * W[r1 + c];
      y2 += x[c] * W[r2 + c];
      y3 += x[c] * W[r3 + c];
    }
    [out[f], out[f + 1], out[f + 2], out[f + 3]] = [y0, y1, y2, y3];
  }
  for (; f < F; f++) out[f] = dot(x, W, 0, f * C, C);
  return b ? add(out, b.data) : out;
}

function rms_norm(x, weight, eps) {
  const root = Math.sqrt(dot(x, x, 0, 0, x.length) / x.length + eps);
  return x.map((a, c) => weight.data[c] * a / root);
}

function layer_norm(x, weight, bias, eps) {
  const mean = x.reduce((sum, a) => sum + a, 0) / x.length;
  return rms_norm(x.map((a) => a - mean), weight, eps).map((a, c) => a + bias.data[c]);
}

const silu = (x) => x / (1 + Math.exp(-x));
const gelu = (x) => 0.5 * x * (1 + Math.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
const add = (x, y) => x.map((a, c) => a + y[c]);

export function forward(id, model, cache, trace = {}) {  // token id -> logits (V,); adds the token to the cache
  const { config, weights } = model, C = config.d_model, gpt2 = config.model_type === "gpt2", eps = config.norm_eps;
  const row = (w, i) => Float64Array.from(w.data.subarray(i * C, i * C + C));
  let x = row(weights.embed, id);  // (C,)
  if (gpt2) {
    const position = cache.next_position(), P = config.max_positions;
    if (position >= P) throw new RangeError(`position ${position} is beyond the ${P} learned positions`);
    x = add(x, row(weights.position, position));
  }
  trace.layers = cache.layers.map(() => ({}));
  for (let i = 0; i < config.n_layers; i++) {
    const w = (name) => weights[`${i}.${name}`];
    let h = gpt2 ? layer_norm(x, w("ln1"), w("ln1_b"), eps) : rms_norm(x, w("attn_norm"), eps);
    const qkv = gpt2 && linear(h, w("w_qkv"), w("b_qkv"));  // (C,) -> (3 C,)
    const [q, k, v] = gpt2  // (C,) -> (H, D), 2 x (K, D)
      ? [0, 1, 2].map((n) => qkv.subarray(n * C, n * C + C))
      : ["q", "k", "v"].map((n) => linear(h, w("w" + n), w("b" + n)));
    const mixed = mix(q, k, v, cache.layers[i], model.rotate, config, w("sink_logits"), trace.layers[i]);  // (H, D)
    x = add(x, linear(mixed, w("wo"), w("bo")));
    h = gpt2 ? layer_norm(x, w("ln2"), w("ln2_b"), eps) : rms_norm(x, w("mlp_norm"), eps);
    const up = linear(h, w("w_up"), w("b_up"));  // (C,) -> (F,)
    const gated = gpt2 ? up.map(gelu) : linear(h, w("w_gate"), w("b_gate")).map((g, f) => silu(g) * up[f]);
    x = add(x, linear(gated, w("w_down"), w("b_down")));  // (F,) -> (C,)
    Object.assign(trace.layers[i], { k, v, x });
  }
  return linear(gpt2 ? layer_norm(x, weights.norm, weights.norm_b, eps) : rms_norm(x, weights.norm, eps), weights.head);
}
