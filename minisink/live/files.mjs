// The parts of a model: a config, arrays in a safetensors file, named as in llama.py and gpt2.py, and a
// byte-level BPE (tokenizer.json). page.py writes all three for any model that `minisink.load` reads.

import { rotation } from "./engine.mjs";

const HALF = Float32Array.from({ length: 65536 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? fraction * 2 ** -14 : (1 + fraction) * 2 ** (exponent - 15));
});
const READ = {
  F16: (raw) => Float32Array.from(new Uint16Array(raw), (bits) => HALF[bits]),
  F32: (raw) => new Float32Array(raw),
};

export function read_safetensors(buffer) {  // bytes -> {name: {shape, data}}
  const length = Number(new DataView(buffer).getBigUint64(0, true)), start = 8 + length, arrays = {};
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  delete header.__metadata__;
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
    if (!READ[dtype]) throw new TypeError(`tensor ${name} is of type ${dtype}; F16 and F32 are supported`);
    arrays[name] = { shape, data: READ[dtype](buffer.slice(start + from, start + to)) };
  }
  return arrays;
}

const transposed = ({ shape: [C, F], data }) =>  // (C, F) -> (F, C)
  ({ shape: [F, C], data: data.map((_, i) => data[(i % C) * F + Math.floor(i / C)]) });

export function load({ config, buffer, tokenizer }) {
  const weights = read_safetensors(buffer);
  for (const [name, array] of Object.entries(weights)) {
    if (array.shape.length === 2 && !["embed", "position"].includes(name)) weights[name] = transposed(array);
  }
  if (config.tied) weights.head = weights.embed;  // the output matrix is the embedding: (V, C)
  return { config, weights, tokenizer: new Tokenizer(tokenizer), rotate: rotation(config) };
}

// GPT-2's rule, with Unicode's spaces: a run of letters, digits or other signs, with a space before it; a run of spaces
const WORDS = new RegExp("'(?:[stmd]|re|ve|ll)| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+"
  + "|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+", "gu");

export class Tokenizer {
  constructor({ model: { vocab, merges }, added_tokens }) {
    this.special = new Map(added_tokens.map(({ id, content }) => [id, content]));
    this.token = new Map(Object.entries(vocab).map(([token, id]) => [id, token]));
    this.pair = new Map(merges.map(([a, b], rank) => [`${vocab[a]} ${vocab[b]}`, [rank, vocab[a + b]]]));
    let n = 256;  // each byte becomes a letter: a printable byte itself, any other one from 256 up
    const shown = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    const letters = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(shown(byte) ? byte : n++));
    this.byte = new Map(letters.map((letter, byte) => [letter, byte]));
    this.id = letters.map((letter) => vocab[letter]);
  }

  encode(text) {  // the name of a special token inside a text stays text
    return (text.match(WORDS) ?? []).flatMap((word) => this.merge(word));
  }

  merge(word) {  // merge the pair of neighbours that was learned first, until no pair is left
    let ids = Array.from(new TextEncoder().encode(word), (byte) => this.id[byte]);
    for (;;) {
      let best = [Infinity];
      for (let i = 1; i < ids.length; i++) {
        const pair = this.pair.get(`${ids[i - 1]} ${ids[i]}`);
        if (pair && pair[0] < best[0]) best = [...pair, ids[i - 1], ids[i]];
      }
      const [rank, merged, a, b] = best, joined = [];
      if (rank === Infinity) return ids;
      for (let i = 0; i < ids.length; i++) joined.push(ids[i] === a && ids[i + 1] === b ? (i++, merged) : ids[i]);
      ids = joined;
    }
  }

  decode(ids) {  // leaves out special tokens
    const letters = ids.filter((id) => !this.special.has(id)).flatMap((id) => [...this.token.get(id)]);
    const bytes = Uint8Array.from(letters, (letter) => this.byte.get(letter));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  }

  text(id) {
    return this.special.get(id) ?? this.decode([id]);
  }
}
