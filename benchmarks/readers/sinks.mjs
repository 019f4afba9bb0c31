// A sink cache in JavaScript, held to the golden vectors. It reads llama.safetensors and writes what it answers, as a dump:
//
//   minisink conformance vectors golden
//   mkdir answers && node benchmarks/readers/sinks.mjs golden/llama.safetensors answers/llama.safetensors
//   minisink conformance check answers/llama.safetensors
//
// A safetensors file is 8 bytes n, n bytes of JSON, and the numbers.
import { readFileSync, writeFileSync } from "node:fs";

// {about, arrays}; of each array its shape, and its numbers if they are in double precision
export function read(path) {
  const bytes = readFileSync(path);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const { __metadata__: about, ...entries } = JSON.parse(bytes.subarray(8, start).toString());
  const arrays = {};
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(entries)) {
    const raw = bytes.subarray(start + begin, start + end);
    if (dtype === "F64") arrays[name] = { shape, numbers: Float64Array.from({ length: raw.length / 8 }, (_, i) => raw.readDoubleLE(8 * i)) };
  }
  return { about, arrays };
}

// arrays by name, each {dtype: "F64" or "I32", shape, numbers: Float64Array or Int32Array}
export function write(path, arrays) {
  const header = {}, parts = [];
  let at = 0;
  for (const [name, { dtype, shape, numbers }] of Object.entries(arrays)) {
    header[name] = { dtype, shape, data_offsets: [at, (at += numbers.byteLength)] };
    parts.push(Buffer.from(numbers.buffer, numbers.byteOffset, numbers.byteLength));
  }
  let json = JSON.stringify(header);
  json += " ".repeat(7 - ((json.length + 7) % 8)); // numbers begin at a multiple of their size
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(path, Buffer.concat([length, Buffer.from(json), ...parts]));
}

// What a query in the newest slot takes home. A score depends only on how far apart query and key stand.
function attend(q, keys, values, theta) {
  const half = q.length / 2;
  const scores = keys.map((key, slot) => {
    let score = 0;
    for (let j = 0; j < half; j++) { // channels in pairs, j and j + D/2
      const angle = theta ? (keys.length - 1 - slot) * theta ** (-j / half) : 0;
      score += Math.cos(angle) * (q[j] * key[j] + q[j + half] * key[j + half]);
      score += Math.sin(angle) * (q[j] * key[j + half] - q[j + half] * key[j]);
    }
    return score / Math.sqrt(q.length);
  });
  const weights = scores.map((score) => Math.exp(score - Math.max(...scores)));
  const sum = weights.reduce((a, b) => a + b);
  return q.map((_, j) => values.reduce((out, value, slot) => out + (weights[slot] / sum) * value[j], 0));
}

// The tokens of a text, one by one: what comes out, and which tokens are held.
function stream({ q, k, v }, nSinks, window, theta) {
  const [T, L, H, D] = q.shape, K = k.shape[2], S = nSinks + window;
  const row = (array, t, i, h) => array.numbers.subarray(D * ((t * L + i) * array.shape[2] + h)).subarray(0, D);
  const out = new Float64Array(q.numbers.length), index = new Int32Array(T * S).fill(-1), held = [];
  for (let t = 0; t < T; t++) {
    if (held.length === S) held.splice(nSinks, 1); // the oldest of the window leaves
    held.push(t);
    index.set(held, t * S);
    for (let i = 0; i < L; i++)
      for (let h = 0; h < H; h++) { // neighbouring heads of queries share a head of keys
        const [keys, values] = [k, v].map((array) => held.map((token) => row(array, token, i, Math.floor((h * K) / H))));
        out.set(attend(row(q, t, i, h), keys, values, theta), D * ((t * L + i) * H + h));
      }
  }
  return { out: { dtype: "F64", shape: q.shape, numbers: out }, token_index: { dtype: "I32", shape: [T, S], numbers: index } };
}

const { about, arrays } = read(process.argv[2]);
const dump = {};
for (const name of Object.keys(arrays).filter((each) => each.endsWith(".q"))) {
  const size = name.slice(0, -2), [nSinks, window] = size.split("+").map(Number);
  const [q, k, v] = ["q", "k", "v"].map((each) => arrays[`${size}.${each}`]);
  for (const [what, array] of Object.entries(stream({ q, k, v }, nSinks, window, JSON.parse(about.theta)))) dump[`${size}.${what}`] = array;
}
write(process.argv[3], dump);
