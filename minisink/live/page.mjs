// The page: controls, lanes, the curve, the quiz. It draws steps of the contract (steps.mjs), computed here or
// recorded; token texts, names and links are not trusted, so they only become text nodes.

import { Dense, Retrieval, Streaming, Window } from "./engine.mjs";
import { load } from "./files.mjs";
import { Lane } from "./steps.mjs";

const MOST_TEXT = 20000, MOST_TOKENS = 4000;  // the most characters and tokens that a page reads
const EVERY = 32;  // tokens between two copies of the lanes, for stepping back
const NAMES = ["dense", "window", "streaming", "retrieval"];
const DEFAULTS = { sinks: 1, window: 11, positions: "slot", layer: 1, head: 3, lanes: "dense,window,streaming", t: 0 };

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent), recorded = data.steps.length > 0;
let model = null, trained = Infinity, curve_width = 900;
let ids = [], at = 0, lanes = [], copies = new Map(), written_from = Infinity, timer = 0, asked = false;
const problems = { link: [], text: [] };  // messages about the link and the text

// Lanes: read on, go back -------------------------------------------------------------------------

function policy_of(name) {
  const sinks = Number($("sinks").value), window = Number($("window").value), positions = $("positions").value;
  if (name === "dense") return Dense("slot");
  if (name === "window") return Window(sinks + window, positions);  // as many keys as the other lanes
  return (name === "streaming" ? Streaming : Retrieval)(sinks, window, positions);
}

function begin() {  // for a new text or new settings: reread everything
  stop();
  [at, copies, written_from, asked] = [0, new Map(), Infinity, false];
  $("ask").hidden = $("answer").hidden = true;
  problems.text = [];
  for (const name of ["sinks", "window"]) $(`${name}-is`).textContent = $(name).value;
  if (recorded) {
    const by = new Map();
    for (const step of data.steps) {
      const key = JSON.stringify([step.model, step.method, step.n_sinks, step.window, step.positions]);
      by.set(key, [...(by.get(key) ?? []), step]);
    }
    lanes = [...by.values()].map((steps) => ({ name: steps[0].method, steps, nll: [], gone: [] }));
  } else {
    const text = $("text").value, first = model.config.bos === null ? [] : [model.config.bos];
    const all = [...first, ...model.tokenizer.encode(text.slice(0, MOST_TEXT))];
    for (const [has, most, what] of [[text.length, MOST_TEXT, "characters"], [all.length, MOST_TOKENS, "tokens"]]) {
      if (has > most) problems.text.push(`This text has ${has} ${what}; the page reads the first ${most}.`);
    }
    ids = all.slice(0, MOST_TOKENS);
    lanes = NAMES.filter((name) => $(`lane-${name}`).checked)
      .map((name) => ({ name, lane: new Lane(model, policy_of(name)), nll: [], gone: [] }));
  }
  read_on(1);
}

const length = () => (recorded ? Math.max(...lanes.map(({ steps }) => steps.length)) : ids.length);

function read_on(n) {  // -> whether a token was read
  const before = at;
  for (; n > 0 && (at < length() || write_one()); n--) {
    if (at % EVERY === 0 && !recorded) copies.set(at, lanes.map(copy_of));
    lanes.forEach(read_one);
    at++;
  }
  return at > before;
}

function write_one() {  // the likeliest next token of the lane that writes
  const lane = lanes.find(({ name }) => name === $("writer").value) ?? lanes.at(-1);
  if (recorded || written_from === Infinity || !lane?.step || at >= MOST_TOKENS) return false;
  return ids.push(lane.lane.step().top[0].id) > 0;
}

function read_one(lane) {
  if (lane.ended) return;
  if (recorded) {
    if (at >= lane.steps.length) return;
    lane.step = lane.steps[at];
    lane.nll.push(lane.step.nll);
    lane.gone.unshift(...lane.step.evicted);
    return;
  }
  if (lane.name === "dense" && at >= 2 * trained) {
    lane.ended = `stopped at ${at} tokens, twice the trained length`;
    return;
  }
  try {
    lane.nll.push(lane.lane.read(ids[at]));
  } catch (error) {
    lane.ended = `stopped: ${error.message}`;
    return;
  }
  lane.step = true;  // made when it is drawn
  lane.gone.unshift(...lane.lane.cache.layers.at(-1).evicted);
}

const copy_of = (lane) => ({ ...lane, lane: lane.lane.copy(), nll: [...lane.nll], gone: [...lane.gone] });
const step_of = (lane) => (recorded || !lane.step ? lane.step : lane.lane.step());

function go_to(t) {  // go back, rereading from the last copy before t
  if (recorded) {
    begin();
    return read_on(t);
  }
  const from = Math.floor(t / EVERY) * EVERY;
  lanes = copies.get(from);  // `read_on` copies them again
  at = from;
  return read_on(t + 1 - from);
}

// What has happened, in a sentence ----------------------------------------------------------------

const SIGNS = { "\n": "⏎", "\t": "⇥", " ": "·" };
const shown = (text) => text.replace(/[ \u0000-\u001f\u007f-\u009f]/g, (letter) => SIGNS[letter] ?? "�");
const quoted = (text) => `“${shown(text)}”`;
const percent = (x) => `${Math.round(100 * x)}\u00a0%`;
const mean = (x) => x.reduce((sum, a) => sum + a, 0) / x.length;
const token_text = (t) => (recorded ? lanes[0].steps[t]?.text ?? "?" : model.tokenizer.text(ids[t]));
const lane_named = (name) => lanes.find((lane) => lane.name === name && lane.step && !lane.ended);

function weights(step) {  // (S,) of the chosen head, or the mean over all
  const layer = $("layer").value, head = $("head").value;
  if (head !== "all") return step.pattern[layer][head];
  const rows = step.pattern.flat();
  return rows[0].map((_, s) => mean(rows.map((row) => row[s])));
}

function sentence(steps) {
  const now = steps.find(Boolean);
  if (!now) return "Type a text, choose a lane, and step through the text.";
  const written = at > written_from, tail = ids.slice(written_from, at).map((id) => model.tokenizer.text(id)).join("");
  const parts = [`Token ${at - 1}, ${quoted(now.text)}, was ${written ? "written" : "read"}.`];
  if (written) parts.push(`Written so far: ${quoted(tail.slice(-80))}.`);
  const running = lanes.map((lane, i) => [lane, steps[i]]).filter(([lane, step]) => step && !lane.ended);
  const evicted = running.filter(([, step]) => step.evicted.length);
  const names = (places) => places.map(token_text).map(quoted).join(", ");
  if (evicted.length === 0) parts.push("Nothing has been evicted yet, so every lane holds the same keys.");
  else {
    const first = evicted.some(([lane, step]) => lane.gone.length === step.evicted.length);
    const verb = (lane) => (lane.name === "retrieval" ? "has stored" : "has lost");
    const lost = evicted.map(([lane, step]) => `${lane.name} ${verb(lane)} ${names(step.evicted)}`);
    parts.push(`${first ? "First eviction" : "Evicted"}: ${lost.join("; ")}.`);
  }
  const streaming = steps[lanes.indexOf(lane_named("streaming"))], window = steps[lanes.indexOf(lane_named("window"))];
  const { position } = streaming?.slots.at(-1) ?? {};
  if (streaming?.evicted.length) parts.push(`In streaming, the newest key is at position ${position}.`);
  return [...parts, ...where_it_went(streaming ?? now, window, steps[lanes.indexOf(lane_named("dense"))])].join(" ");
}

function where_it_went(streaming, window, dense) {
  const kept = weights(streaming), row = window && weights(window);
  const first = quoted(token_text(streaming.slots[0].token));
  const who = $("head").value === "all" ? "On average, a head" : `Layer ${$("layer").value}, head ${$("head").value}`;
  const parks = `${who} puts ${percent(kept[0])} of its weight on ${first}`;
  if (streaming.method === "streaming" && streaming.n_sinks === 0) return ["Without a sink, streaming is a window."];
  if (!window?.evicted.length || streaming.slots[0].token !== 0 || window.slots[0].token === 0) return [`${parks}.`];
  if (model && (model.config.softmax !== "softmax" || model.config.sink_logit)) {
    return [`${parks} in streaming; the weights of this model need not add up to one, so nothing has to be parked.`];
  }
  if (kept[0] < 0.1) {  // it looks for something: does streaming still have it?
    const held = new Set(streaming.slots.map(({ token }) => token)), best = kept.indexOf(Math.max(...kept));
    const gone = dense ? weights(dense).reduce((sum, x, t) => sum + (held.has(t) ? 0 : x), 0) : 0;
    const looks = `it looks at ${quoted(token_text(streaming.slots[best].token))} (${percent(kept[best])}).`;
    if (gone < 0.1) return [`${parks} in streaming; ${looks}`];
    return [`${parks} in streaming; ${looks} In dense it puts ${percent(gone)} on tokens that streaming has lost.`];
  }
  const before = new Map(streaming.slots.map(({ token }, s) => [token, kept[s]]));
  const gain = ({ token }, s) => [row[s] - (before.get(token) ?? 0), token, s];
  const [, token, s] = window.slots.map(gain).sort((a, b) => b[0] - a[0])[0];
  const instead = `${percent(row[s])} instead of ${percent(before.get(token) ?? 0)}`;
  const heir = quoted(token_text(token));
  return [`${parks} in streaming. The window has lost it, so the weight goes to ${heir} (${instead}).`];
}

// Drawing -----------------------------------------------------------------------------------------

const NS = "http://www.w3.org/2000/svg";

function put(parent, tag, attributes = {}, text = null) {  // a new element, its text a text node
  const element = parent.namespaceURI === NS ? document.createElementNS(NS, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.append(document.createTextNode(text));
  parent.append(element);
  return element;
}

const BADGES = { sink: "⚓ sink ", window: "window ", newest: "▲ new ", fetched: "↩ back " };

function say(element, text) {  // a text node, set only if it changes, since each change costs a layout
  if (element.textContent !== text) element.textContent = text;
}

function new_slot() {
  const item = document.createElement("li"), label = put(item, "div", { class: "label" });
  put(label, "em");
  put(label, "span", { class: "weight" });
  put(put(item, "div", { class: "bar" }), "i");
  for (const tag of ["b", "small", "small"]) put(item, tag);
  return item;
}

function draw_slot(item, { token, position, role, weight, slot }) {
  const [label, bar, text, place, number] = item.children;
  item.className = `slot ${role}`;
  delete item.dataset.slot;
  Object.assign(item.dataset, { token, position, role, ...(slot === undefined ? {} : { slot }) });
  say(label.firstChild, BADGES[role]);
  say(label.lastChild, percent(weight));
  bar.firstChild.style.height = `${(100 * weight).toFixed(1)}%`;
  text.title = token_text(token);
  say(text, shown(token_text(token)) || "∅");
  say(place, `t ${token}`);
  say(number, position === null ? "p –" : `p ${position}`);
  return item;
}

function gap_of({ slots, n_sinks }) {  // the slots [from, to) that dense has and the other lanes do not
  const most = Number($("sinks").value) + Number($("window").value), S = slots.length, first = Math.max(1, n_sinks);
  return recorded || S <= most || S <= first + 2 ? [S, S] : [first, S - (most - first)];
}

function draw_slots(list, step) {  // a token that stays keeps its element
  const row = weights(step), gap = gap_of(step), held = new Map([...list.children].map((li) => [li.dataset.token, li]));
  const item = (slot) => draw_slot(held.get(String(slot.token)) ?? new_slot(), slot), items = [];
  step.slots.forEach((slot, s) => {
    if (s === gap[0]) {
      const hidden = percent(row.slice(...gap).reduce((sum, x) => sum + x, 0));
      const between = held.get("gap") ?? put(list, "li", { class: "slot gap", "data-token": "gap" });
      say(between, `… ${gap[1] - gap[0]} more, ${hidden}`);
      items.push(between);
    }
    if (s < gap[0] || s >= gap[1]) items.push(item({ ...slot, weight: row[s], slot: s }));
  });
  const fetched = $("head").value === "all" ? [] : step.fetched?.[$("layer").value][$("head").value] ?? [];
  items.push(...fetched.map(({ token, weight }) => item({ token, position: null, role: "fetched", weight })));
  for (const li of held.values()) if (!items.includes(li)) li.remove();
  items.forEach((li, i) => { if (list.children[i] !== li) list.insertBefore(li, list.children[i] ?? null); });
}

function draw_heads(canvas, step) {  // small multiples: a row per head, a column per slot, darkest for weight 1
  canvas.hidden = $("head").value !== "all";
  if (canvas.hidden) return;
  const [from, to] = gap_of(step), rows = step.pattern.flat().map((row) => row.filter((_, s) => s < from || s >= to));
  const S = rows[0].length, size = Math.max(2, Math.min(24, Math.floor(1400 / S)));
  [canvas.width, canvas.height] = [S * size, rows.length * 10];
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  rows.forEach((row, h) => row.forEach((weight, s) => {
    pen.fillStyle = `rgba(120, 45, 5, ${Math.min(1, weight)})`;
    pen.fillRect(s * size, h * 10, size - 1, 9);
  }));
  canvas.setAttribute("aria-label", `weights of ${rows.length} heads, one row each from layer 0 down, over ${S} slots`);
}

function draw_lane({ name, gone, ended }, step, section) {
  const keeps = { dense: "keeps everything", window: `the last ${step.window} (sinks + window)` };
  const back = step.fetched?.flat().map((row) => row.reduce((sum, { weight }) => sum + weight, 0));
  section.about.textContent = [
    keeps[name] ?? `${step.n_sinks} ${step.n_sinks === 1 ? "sink" : "sinks"} + the last ${step.window}`,
    `${step.slots.length} ${step.slots.length === 1 ? "key" : "keys"}`,
    back ? `${step.n_blocks} blocks of ${step.block} fetched, ${percent(mean(back))} of all heads' weight` : null,
    ended ?? (at > trained && name === "dense" ? `beyond the ${trained} tokens it was trained on` : null),
  ].filter(Boolean).join(" · ");
  draw_slots(section.slots, step);
  section.gone.replaceChildren();
  put(section.gone, "li", { class: "label" }, gone.length ? `${gone.length} evicted:` : "none evicted");
  gone.slice(0, 4).forEach((t, i) => {
    put(section.gone, "li", i < step.evicted.length ? { class: "just" } : {}, shown(token_text(t)));
  });
  draw_heads(section.heads, step);
}

function sections() {  // one for each lane, made once
  const parts = lanes.map(({ name }) => {
    const section = document.createElement("section"), top_line = put(section, "div");
    const h2 = put(top_line, "h2", {}, name);
    section.className = `lane ${name}`;
    section.dataset.lane = name;
    section.setAttribute("aria-label", name);
    return {
      section, about: put(h2, "span"), gone: put(top_line, "ul", { class: "gone", "aria-label": `evicted by ${name}` }),
      slots: put(section, "ol", { class: "slots", tabindex: 0, "aria-label": `slots of ${name}` }),
      heads: put(section, "canvas", { class: "heads", role: "img" }),
    };
  });
  $("lanes").replaceChildren(...parts.map(({ section }) => section));
  return parts;
}

function first_eviction() {
  const when = lanes.filter(({ gone }) => gone.length).map((lane) => lane.nll.length - lane.gone.length);
  return when.length ? Math.min(...when) : null;
}

const DASH = { dense: "2 4", window: "9 5", streaming: "none", retrieval: "9 3 2 3" };

function measure() {  // when the browser window changes: measuring at each step would lay out the whole page
  curve_width = $("curve").clientWidth || 900;
  draw_curve();
}

function draw_curve() {
  const svg = $("curve"), W = curve_width, H = 220, N = Math.max(60, at), first = first_eviction();
  const x = (t) => 30 + (t / N) * (W - 130), y = (nats) => H - 22 - (Math.min(nats, 9) / 9) * (H - 34), ends = [];
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.replaceChildren();
  for (const nats of [0, 3, 6, 9]) {
    put(svg, "line", { class: "axis", x1: 30, x2: W - 100, y1: y(nats), y2: y(nats) });
    put(svg, "text", { x: 6, y: y(nats) + 5 }, String(nats));
  }
  put(svg, "text", { x: W - 160, y: H - 5 }, `token ${N}`);
  if (first !== null) {
    put(svg, "line", { class: "first", x1: x(first), x2: x(first), y1: 8, y2: H - 22 });
    put(svg, "text", { x: x(first) + 5, y: 16 }, `first eviction, token ${first}`);
  }
  if (at > written_from) put(svg, "text", { x: x(written_from), y: H - 26 }, `written from token ${written_from}`);
  for (const { name, nll: losses } of lanes) {
    const points = [];
    for (let t = 1, sum = 0; t < losses.length; t++) {
      sum += losses[t] - (t > 16 ? losses[t - 16] : 0);
      points.push([x(t), y(sum / Math.min(t, 16))]);
    }
    if (!points.length) continue;
    const path = points.map((point) => point.map((v) => v.toFixed(1)).join(",")).join(" ");
    put(svg, "polyline", { class: name, "stroke-dasharray": DASH[name] ?? "none", points: path });
    ends.push([name, ...points.at(-1)]);
  }
  ends.sort((a, b) => a[2] - b[2]);
  ends.reduce((last, [name, px, py]) => {
    const place = Math.max(py + 5, last + 16);
    put(svg, "text", { class: name, x: Math.min(px + 6, W - 92), y: place }, name);
    return place;
  }, -Infinity);
  const since = (first ?? 0) + 1, when = first === null ? "so far" : `since token ${since}`;
  const read = (losses) => losses.slice(since, written_from);  // a model finds its own text likely
  const perplexity = (losses) => (read(losses).length ? Math.exp(mean(read(losses))).toFixed(1) : "–");
  const values = lanes.map(({ name, nll: losses }) => `${name} ${perplexity(losses)}`);
  $("perplexity").textContent = `Perplexity ${when}: ${values.join(", ")}.`;
}

function draw_next(steps) {
  const body = $("next").tBodies[0], columns = lanes.map((lane, i) => [lane.name, steps[i]]).filter(([, step]) => step);
  body.replaceChildren();
  const header = put(body, "tr");
  for (const [name] of columns) put(header, "th", { scope: "col" }, name);
  for (let rank = 0; rank < 5; rank++) {
    const row = put(body, "tr");
    for (const [, { top: likeliest }] of columns) {
      const next = likeliest[rank];
      put(row, "td", {}, next ? `${shown(next.text)}  ${percent(next.p)}` : "");
    }
  }
}

let made = { key: null, parts: [] };

function draw() {
  const steps = lanes.map(step_of), key = lanes.map(({ name }) => name).join();
  if (made.key !== key) made = { key, parts: sections() };
  lanes.forEach((lane, i) => { if (steps[i]) draw_lane(lane, steps[i], made.parts[i]); });
  $("say").setAttribute("aria-live", timer ? "off" : "polite");
  $("say").textContent = sentence(steps);
  draw_curve();
  draw_next(steps);
  $("back").disabled = at < 2;
  $("step").disabled = at >= length();
  $("run").textContent = timer ? "stop" : "run";
  const parts = { ...settings(), t: Math.max(0, at - 1) };
  $("link").href = `#${Object.entries(parts).map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&")}`;
  $("problem").textContent = [...problems.link, ...problems.text].join(" ");
  $("problem").hidden = $("problem").textContent === "";
}

// The quiz: what happens at the first eviction, asked before it is shown --------------------------

function quiz_is_due() {
  const lane = recorded ? null : lane_named("streaming");
  if (!$("quiz").checked || asked || !lane || at !== lane.lane.policy.capacity || at >= length()) return false;
  $("ask-lane").replaceChildren();
  put($("ask-lane"), "option", { value: "" }, "");
  for (const { name } of lanes) put($("ask-lane"), "option", { value: name }, name);
  stop();
  $("ask").hidden = false;
  $("ask-slot").focus();
  return true;
}

function answer(event) {
  event.preventDefault();
  const lane = lane_named("streaming"), slot = lane.lane.policy.n_sinks, ahead = lanes.map(copy_of);
  const losses = ahead.map(({ lane: it, ended }) => (ended ? [0] : ids.slice(at, at + 24).map((id) => it.read(id))));
  const worst = lanes[losses.map(mean).reduce((best, x, i, all) => (x > all[best] ? i : best), 0)].name;
  asked = true;
  $("ask").hidden = true;
  read_on(1);
  draw();
  const position = step_of(lane_named("streaming")).slots.at(-1).position;
  const mark = (given, right) => (given === String(right) ? "Right" : `No, you said ${given}`);
  const each = lanes.map(({ name }, i) => `${name} ${mean(losses[i]).toFixed(2)}`).join(", ");
  $("answer").textContent = [
    `${mark($("ask-slot").value, slot)}: slot ${slot} is evicted, the first after the sinks.`,
    `${mark($("ask-position").value, position)}: the newest key gets position ${position}.`,
    `${mark($("ask-lane").value, worst)}: ${worst} does worst. Nats per token, next ${losses.at(-1).length}: ${each}.`,
  ].join("\n");
  $("answer").hidden = false;
}

// Controls and links ------------------------------------------------------------------------------

function stop() {
  clearInterval(timer);
  timer = 0;
}

function step(n = 1) {
  if (n === 1 && quiz_is_due()) return;
  read_on(n);
  draw();
}

function back() {
  stop();
  if (at > 1) go_to(at - 2);
  draw();
}

function run() {
  const on = () => {
    if (quiz_is_due() || !read_on(1)) stop();
    draw();
  };
  if (timer) stop();
  else timer = setInterval(on, 1000 / Number($("speed").value));
  draw();
}

function write() {  // the text after the current token is cut off, and the lane continues
  ids.length = Math.min(at, ids.length);
  written_from = Math.min(written_from, ids.length);
  if (!timer) run();
}

function home() {
  begin();
  draw();
}

const CHOSEN = ["sinks", "window", "positions", "layer", "head"];
const settings = () => ({
  ...Object.fromEntries(CHOSEN.map((name) => [name, $(name).value])),
  lanes: NAMES.filter((name) => $(`lane-${name}`)?.checked).join(), ...($("quiz").checked ? { quiz: 1 } : {}),
});

function follow(hash) {  // a link has settings; invalid ones are reported and ignored
  problems.link = [];
  const asks = { ...DEFAULTS }, given = new URLSearchParams(hash.replace(/^#/, ""));
  const whole = (from, to) => (value) => /^\d{1,9}$/.test(value) && Number(value) >= from && Number(value) <= to;
  const choice = (id) => (value) => [...$(id).options].some((option) => option.value === value);
  const means = {
    sinks: whole(0, 8), window: whole(1, 32), t: whole(0, MOST_TOKENS - 1), quiz: whole(0, 1),
    positions: choice("positions"), layer: choice("layer"), head: choice("head"),
    lanes: (value) => value.split(",").every((name) => NAMES.includes(name)),
  };
  for (const [name, value] of given) {
    if (Object.hasOwn(means, name) && means[name](value)) asks[name] = value;
    else problems.link.push(`The link contains ${name.slice(0, 20)}=${value.slice(0, 20)}, which is not a setting.`);
  }
  for (const name of CHOSEN) if (!$(name).options || choice(name)(String(asks[name]))) $(name).value = asks[name];
  for (const name of NAMES) if ($(`lane-${name}`)) $(`lane-${name}`).checked = asks.lanes.split(",").includes(name);
  $("quiz").checked = String(asks.quiz) === "1";
  begin();
  read_on(Math.min(Number(asks.t), length() - 1));
  draw();
}

function number_options(select, n, ...more) {
  select.replaceChildren();
  for (let i = 0; i < n; i++) put(select, "option", { value: i }, String(i));
  for (const [value, text] of more) put(select, "option", { value }, text);
}

const TEXTS = {
  "the novel": data.text,
  "one sentence, repeated": "The old house stood at the end of the road. ".repeat(40),
  "numbers": Array.from({ length: 200 }, (_, i) => i + 1).join(" "),
};

function open_model() {
  const known = (step) => step.schema === "minisink-step/1" && Array.isArray(step.pattern) && Array.isArray(step.slots);
  if (recorded && !data.steps.every(known)) throw new TypeError("its steps do not have the schema minisink-step/1");
  if (recorded) return;
  const bytes = Uint8Array.from(atob(data.arrays), (letter) => letter.charCodeAt(0));
  model = load({ config: data.config, tokenizer: data.tokenizer, buffer: bytes.buffer });
  trained = model.config.max_positions;
}

function set_up() {
  const pattern = recorded ? data.steps[0].pattern : null;
  number_options($("layer"), pattern?.length ?? model.config.n_layers);
  number_options($("head"), pattern?.[0].length ?? model.config.n_heads, ["all", "all heads"]);
  $("model").textContent = recorded ? `a recorded run of ${data.steps[0].model}, ${data.steps.length} steps`
    : `${model.config.name}, a real language model, runs on this page; nothing is downloaded`;
  for (const name of NAMES) {
    const label = put($("which"), "label"), box = put(label, "input", { type: "checkbox", id: `lane-${name}` });
    label.append(document.createTextNode(name));
    box.addEventListener("input", home);
    put($("writer"), "option", { value: name }, name);
  }
  $("writer").value = "streaming";
  for (const name of Object.keys(TEXTS)) put($("choose"), "option", { value: name }, name);
  $("text").value = data.text;
  for (const id of ["sinks", "window", "positions"]) $(id).addEventListener("input", home);
  for (const id of ["layer", "head"]) $(id).addEventListener("input", draw);
  $("text").addEventListener("input", () => { problems.link = []; home(); });
  $("choose").addEventListener("input", () => {
    $("text").value = TEXTS[$("choose").value];
    problems.link = [];
    home();
  });
  $("speed").addEventListener("input", () => { if (timer) { stop(); run(); } });
  for (const [id, act] of Object.entries({ home, back, run, write })) $(id).addEventListener("click", act);
  $("step").addEventListener("click", () => step(1));
  $("ask").addEventListener("submit", answer);
  $("quiz").addEventListener("input", () => {
    const late = lane_named("streaming") && at > lane_named("streaming").lane.policy.capacity;
    $("answer").textContent = "The quiz comes before the first eviction. To take it, start again.";
    $("answer").hidden = !($("quiz").checked && late);
  });
  addEventListener("hashchange", () => follow(location.hash));
  addEventListener("resize", measure);
  $("which").hidden = recorded;
  if (recorded) {
    const first = data.steps.filter(({ method }) => method === data.steps[0].method);
    $("text").value = first.map(({ text }) => text).join("");
    for (const id of ["text", "choose", "write", "writer", "quiz", ...CHOSEN.slice(0, 3)]) $(id).disabled = true;
  }
  addEventListener("keydown", (event) => {
    const box = event.target.type === "checkbox", inside = box ? "BUTTON" : event.target.tagName;
    if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "TEXTAREA", "SELECT"].includes(inside)) return;
    const act = { ArrowRight: () => step(1), ArrowLeft: back, Home: home, " ": run }[event.key];
    if (act && !(event.key === " " && ["BUTTON", "A"].includes(inside))) {  // space presses these
      event.preventDefault();
      act();
    }
  });
}

try {
  open_model();
  set_up();
  follow(location.hash);
  measure();
} catch (error) {
  $("problem").hidden = false;
  $("problem").textContent = `This page cannot be shown: ${error.message}.`;
}
window.minisink = {
  state: () => ({ lanes: lanes.map(step_of).filter(Boolean) }),
  step(n = 1) {
    read_on(n);
    draw();
  },
};
