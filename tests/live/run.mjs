// node run.mjs FOLDER < request: what the scripts of FOLDER (minisink/live, or one with a mistake) answer, as JSON.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const script = (name) => import(`${pathToFileURL(process.argv[2])}/${name}.mjs`);
const { Policy, normalise } = await script("engine");
const { load } = await script("files");
const { Lane } = await script("steps");

const { packed, cases = [], texts = [], tokens = [], scores = [] } = JSON.parse(readFileSync(0, "utf8"));
const model = load({ ...packed, buffer: Uint8Array.from(Buffer.from(packed.arrays, "base64")).buffer });

function read({ policy, ids, whole }) {
  const made = new Policy(policy.method, policy.n_sinks, policy.window ?? Infinity);
  const lane = new Lane(model, Object.assign(made, policy, { window: made.window }));
  const start = performance.now();
  const steps = ids.map((id) => {
    const nll = lane.read(id);
    return whole ? lane.step() : nll;
  });
  return { steps, ms: performance.now() - start };
}

console.log(JSON.stringify({
  cases: cases.map(read),
  ids: texts.map((text) => model.tokenizer.encode(text)),
  texts: tokens.map((ids) => model.tokenizer.decode(ids)),
  patterns: scores.map(([kind, sink, row]) => {
    normalise(row, kind, sink ?? undefined);
    return row;
  }),
}));
