// The window to a test network: asks for its story once a second and shows it (docs/window.md).
import { ask, el, Refused } from "/shared/peel.js";
import { Graph, svg, hue } from "/graph.js";
import { Chart, bytes, clock, short } from "/charts.js";

const $ = (id) => document.getElementById(id);
const cellBytes = 1382;

// The story so far. In a report it is in the page itself.
const report = $("report") ? JSON.parse($("report").textContent) : null;
let now = null; // the newest snapshot
let events = [];
let chosen = null; // {node} or {circuit}
let lines = null; // the story of what was chosen

const since = (time) => (Date.parse(time) - Date.parse(now.started)) / 1000;
const ms = (ns) => (ns > 0 ? (ns / 1e6).toFixed(ns < 1e8 ? 1 : 0) + " ms" : "–");

// put shows children in a place, if they are not there already: what does not change keeps its focus.
const before = new Map();
function put(place, key, make) {
  if (before.get(place) === key) return;
  before.set(place, key);
  const focus = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const top = place.scrollTop;
  place.replaceChildren(...[make()].flat().filter((c) => c !== null));
  place.scrollTop = top;
  if (focus) (place.querySelector(`[data-key="${CSS.escape(focus)}"]`) ?? place.querySelector(".acts button"))?.focus(); // Restore is where Kill was
}

// act asks for something to be done to the network, and shows how it is then.
async function act(path, button) {
  if (button?.getAttribute("aria-disabled") === "true") return;
  button?.setAttribute("aria-disabled", "true"); // it keeps the focus
  try {
    await ask(path, { method: "POST" });
    trouble(null);
  } catch (e) {
    trouble(e, true);
  }
  button?.removeAttribute("aria-disabled");
  turn();
}

let troubleUntil = 0;
function trouble(e, stays) {
  const t = $("trouble");
  if (!e && Date.now() < troubleUntil) return;
  if (stays) troubleUntil = Date.now() + 6000;
  t.hidden = !e;
  const text = !e ? "" : e instanceof Refused ? "The token is missing or wrong: open the address that peel testnet prints." : e.message;
  if (t.textContent !== text) t.textContent = text;
}

const graph = new Graph($("graph"), choose);
const charts = {
  bytes: new Chart($("plot-bytes"), [{ name: "to clients", property: "--plot-1", ground: true }, { name: "from", property: "--plot-2" }], (n) => bytes(n) + "/s"),
  cells: new Chart($("plot-cells"), [{ name: "cells a second", property: "--plot-3", ground: true }], short),
  first: new Chart($("plot-first"), [{ name: "first byte", property: "--plot-4", points: true }], (n) => (n < 999.5 ? short(n) + " ms" : short(n / 1000) + " s")),
};

function choose(what) {
  chosen = what;
  lines = null;
  graph.select(what);
  if (!now) return;
  showStory();
  showCircuits();
  askLines();
}

async function askLines() {
  const what = chosen;
  if (!what) return;
  if (report) lines = report.lines[what.node ? "node " + what.node : "circuit " + what.circuit] ?? { lines: [] };
  else {
    try {
      const l = await ask("/lines?" + new URLSearchParams(what));
      if (what !== chosen) return;
      lines = l;
    } catch {
      return;
    }
  }
  showStory();
}

function show(v) {
  now = v;
  const known = events.length ? events[events.length - 1].seq : 0;
  events = events.concat(v.events.filter((e) => e.seq > known)).slice(-500);
  document.title = "Peel test network " + v.network;
  $("about").textContent = [v.network, v.ground, v.weather && "weather: " + v.weather, v.over && "over after " + clock(since(v.now))].filter(Boolean).join(" · ");
  showOutcome();
  showTiles();
  showTools();
  graph.show(v);
  showStory();
  showCharts();
  showPeriods();
  showCircuits();
  showDownloads();
  showEvents();
}

// howFast says how fast virtual time goes, over the last few answers.
let beats = [];
function howFast(v) {
  if (!v.pace || v.over) return "";
  if (v.pace === "paused") return "stands still";
  beats = beats.concat({ at: performance.now(), now: Date.parse(v.now) }).slice(-5);
  const real = beats[beats.length - 1].at - beats[0].at, n = (beats[beats.length - 1].now - beats[0].now) / real;
  return real > 0 ? (n < 9.5 ? n.toFixed(1) : short(Math.round(n))) + "× real time" : "";
}

const paceName = (p) => ({ paused: "stand still", full: "as it can" })[p] ?? p.replace(/x$/, "×");

// anew forgets the run that was shown: the window shows another one.
function anew() {
  [now, events, chosen, lines, beats] = [null, [], null, null, []];
  before.clear();
  graph.anew();
}

// showOutcome shows what came of the run, when it is over.
function showOutcome() {
  const o = now.outcome, place = $("outcome");
  place.hidden = !o;
  put(place, JSON.stringify(o ?? null), () => {
    if (!o) return [];
    const [first, ...more] = o.text.trimEnd().split("\n");
    return [el("h2", {}, first, el("span", { class: "sign " + (o.well ? "good" : "bad") }, o.well ? "as expected" : "not as expected")), el("ul", {}, ...more.map((line) => el("li", {}, line.trim())))];
  });
}

const many = () => now.nodes.filter((n) => n.role === "client").length > 1;

function showTiles() {
  const nodes = now.nodes.filter((n) => n.role === "relay"), authorities = now.nodes.filter((n) => n.role === "authority");
  const up = (all) => all.filter((n) => n.state === "up").length + " of " + all.length;
  const open = now.circuits.filter((c) => c.state === "open" || c.state === "closing");
  const rate = now.nodes.reduce((sum, n) => sum + n.rate, 0), got = open.reduce((sum, c) => sum + c.in, 0);
  const pace = howFast(now);
  const tiles = [["time" + (pace && ", " + pace), clock(since(now.now))], ["relays up", up(nodes)], ["authorities", up(authorities)], ["circuits", open.length], ["streams", open.reduce((sum, c) => sum + c.streams, 0)],
    ["cells a second", short(rate)], [many() ? "to the clients" : "to the client", bytes(got * cellBytes) + "/s"]];
  put($("tiles"), JSON.stringify(tiles), () => tiles.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
}

let moving = !graph.still;
function showTools() {
  if (report) return;
  put($("tools"), JSON.stringify([now.can, now.weathers, now.weather, now.pace, moving, now.over]), () => {
    const all = [];
    if (now.over) return all;
    if (now.can.includes("fetch")) all.push(el("button", { "data-key": "fetch", onclick: (e) => act("/fetch", e.currentTarget) }, "Fetch a page"));
    if (now.can.includes("weather")) {
      const s = el("select", { id: "weather", "data-key": "weather", onchange: (e) => act("/weather?" + new URLSearchParams({ name: e.target.value })) },
        ...now.weathers.map((w) => el("option", { value: w, selected: w === now.weather }, w)));
      all.push(el("label", {}, "Weather ", s));
    }
    if (now.can.includes("pace")) {
      const s = el("select", { id: "pace", "data-key": "pace", onchange: (e) => act("/pace?" + new URLSearchParams({ name: e.target.value })) },
        ...now.paces.map((p) => el("option", { value: p, selected: p === now.pace }, paceName(p))));
      all.push(el("label", {}, "Pace ", s));
    }
    all.push(el("button", { "data-key": "motion", "aria-pressed": String(!moving), onclick: () => { moving = !moving; graph.motion(moving); showTools(); } }, "Hold still"));
    return all;
  });
}

const nodeOf = (name) => now.nodes.find((n) => n.name === name);
const circuitOf = (key) => now.circuits.find((c) => c.key === key);
const pickNode = (name) => el("button", { class: "small", "data-key": "node " + name, onclick: () => choose({ node: name }) }, name);
const pickCircuit = (c) => el("button", { class: "small", "data-key": "circuit " + c.key, onclick: () => choose({ circuit: c.key }) }, swatch(c), "circuit " + c.id);

function swatch(c) {
  const s = el("span", { class: "swatch" });
  s.style.color = `var(${hue(c)})`;
  return s;
}

const signs = { up: "good", open: "good", starting: "warn", building: "warn", closing: "warn", frozen: "warn", silent: "warn", down: "bad", failed: "bad", closed: "" };
const sign = (state) => el("span", { class: "sign " + (signs[state] ?? "") }, state);
const pairs = (rows) => el("dl", {}, ...rows.filter(([, v]) => v !== "" && v !== undefined && v !== null).flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, ...[v].flat())]));

function told() {
  if (!lines || !lines.lines.length) return [el("p", { class: "soft" }, lines ? "Nothing yet." : "…")];
  return [el("ol", {}, ...lines.lines.slice().reverse().map((e) => el("li", {}, el("span", { class: "soft" }, clock(since(e.at))), el("span", {}, chosen?.node && e.circuit && e.node !== chosen.node && many() ? e.node + ": " : "", e.text))))];
}

function spark(rates) {
  if (!rates || rates.length < 2) return null;
  const most = Math.max(1, ...rates);
  return svg("svg", { class: "spark", viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": "cells a second, lately" },
    svg("polyline", { points: rates.map((r, i) => `${((100 * i) / (rates.length - 1)).toFixed(1)},${(29 - (27 * r) / most).toFixed(1)}`).join(" ") }));
}

const close = () => el("button", { class: "small close", "data-key": "close", "aria-label": "Close this story", onclick: () => choose(null) }, "×");

function showStory() {
  const place = $("story");
  const n = chosen?.node && nodeOf(chosen.node), c = chosen?.circuit && circuitOf(chosen.circuit);
  if (n) {
    const through = now.circuits.filter((x) => (x.path.includes(n.name) || x.client === n.name) && (x.state === "open" || x.state === "closing" || x.state === "building"));
    put(place, JSON.stringify([n, through.map((x) => x.key), lines, now.can, now.over]), () => nodeStory(n, through));
  } else if (c) {
    put(place, JSON.stringify([c, lines]), () => circuitStory(c));
  } else {
    put(place, "none" + chosen + now.over, () => [
      el("h2", {}, chosen ? "It is gone" : "How to look"),
      el("p", {}, "Choose a node or a circuit, here or in the tables, to see its story" + (report || now.over ? "." : ", and to kill, freeze or restore a node." + (now.can.includes("weather") ? " Weather is what lies between all of them: far places, loss, broken lines." : ""))),
      el("h3", {}, "What moves"),
      el("p", {}, "Each dot stands for cells of a circuit. It has a ring for every layer of encryption: a relay peels one on the way out, and wraps one on the way back. Ten times the cells make a few more dots, not ten times as many."),
      el("h3", {}, "Keys"),
      el("p", {}, "Tab to the network, arrows from node to node, Enter for its story, Escape to let go."),
    ]);
  }
}

// deeds says what villains do (docs/testnet.md).
const deeds = {
  tag: "flips a bit in every 20th cell", drop: "leaves cells out", replay: "sends cells twice", reorder: "sends cells in another order", inject: "adds cells of its own", stall: "takes cells, and sends none on",
  delay: "waits before each record", flood: "sends or asks for more than it may", boast: "offers 1 GB/s", lie: "hands out nonsense for relay lists", mute: "answers nothing", stale: "answers with an old list",
  equivocate: "votes in two ways", circles: "builds circuits that go round",
};

function nodeStory(n, through) {
  const acts = [], can = (what) => !report && !now.over && now.can.includes(what) && (n.role === "relay" || n.role === "authority");
  const button = (what, name) => acts.push(el("button", { "data-key": what, onclick: (e) => act("/" + what + "?" + new URLSearchParams({ node: n.name }), e.currentTarget) }, name));
  if (can("kill") && n.state !== "down") button("kill", "Kill");
  if (can("freeze") && n.state === "up") button("freeze", "Freeze");
  if (can("restore") && (n.state === "down" || n.state === "frozen")) button("restore", "Restore");
  return [
    el("h2", {}, n.name, sign(n.state), n.villain ? el("span", { class: "sign bad" }, "villain") : null, close()),
    pairs([["role", n.role], ["does", n.villain && n.villain + (deeds[n.villain] ? ": " + deeds[n.villain] : "")], ["place", n.place], ["address", n.addr], ["flags", (n.flags ?? []).join(" ")], ["bandwidth", n.bandwidth ? bytes(n.bandwidth) + "/s" : ""],
      ["cells", n.role === "server" || n.role === "client" ? "" : `${short(n.cells)}, ${short(n.rate)} a second`]]),
    n.role === "relay" || n.role === "authority" ? spark(lines?.rates) : null,
    acts.length ? el("div", { class: "acts" }, ...acts) : null,
    through.length ? el("h3", {}, "Circuits") : null,
    through.length ? el("ul", { class: "few" }, ...through.slice(-24).map((c) => el("li", {}, pickCircuit(c)))) : null,
    el("h3", {}, "Story"), ...told(),
  ];
}

function circuitStory(c) {
  return [
    el("h2", {}, swatch(c), "Circuit " + c.id, sign(c.state), close()),
    pairs([["client", c.client], ["for", c.purpose], ["path", c.path.map(pickNode).flatMap((b, i) => (i ? [" → ", b] : [b]))], ["streams", String(c.streams)],
      ["begun", "at " + clock(since(c.begun))], ["ended", c.ended ? "at " + clock(since(c.ended)) : ""], ["why", c.why],
      ["sent", `${short(c.sent)} cells, ${short(c.out)} a second`], ["received", `${short(c.received)} cells, ${short(c.in)} a second`]]),
    el("h3", {}, "Story"), ...told(),
  ];
}

function showCharts() {
  const s = now.series, start = Date.parse(now.started) / 1000, t = s.t.map((x) => x - start);
  const marks = now.marks.map((m) => ({ t: since(m.at), kind: m.kind }));
  charts.bytes.show([t, s.in, s.out], marks);
  charts.cells.show([t, s.cells], marks);
  charts.first.show([t, s.first_byte], marks);
}

const glyphs = {
  signed: () => svg("circle", { cx: 8, cy: 8, r: 5, class: "signed" }),
  voted: () => svg("circle", { cx: 8, cy: 8, r: 5, class: "voted" }),
  missing: () => svg("circle", { cx: 8, cy: 8, r: 5, class: "missing" }),
  wrong: () => svg("path", { d: "M8 2l6 11H2z", class: "wrong" }),
};
const words = { signed: "voted and signed", voted: "voted", missing: "neither", wrong: "signed another, or voted twice" };
const glyph = (what) => svg("svg", { viewBox: "0 0 16 16", role: "img", "aria-label": words[what] }, glyphs[what]());

function stood(p, name) {
  if ((p.differ ?? []).includes(name) || (p.twice ?? []).includes(name)) return "wrong";
  return p.signatures.includes(name) ? "signed" : p.votes.includes(name) ? "voted" : "missing";
}

function showPeriods() {
  const fit = Math.max(4, Math.floor(($("periods").clientWidth - 110) / 50)) || 8;
  const last = report ? now.periods : now.periods.slice(-fit), names = now.nodes.filter((n) => n.role === "authority").map((n) => n.name);
  put($("periods"), JSON.stringify([last, names, fit]), () => {
    if (!last.length) return [el("p", { class: "soft" }, "No period yet.")];
    const made = (p) => p.needed > 0 && p.signatures.length >= p.needed;
    return [
      el("table", { class: "council" },
        el("thead", {}, el("tr", {}, el("th", {}, el("span", { class: "unseen" }, "authority")), ...last.map((p) => el("th", { scope: "col", title: "holds from " + p.valid_after }, clock(since(p.valid_after)))))),
        el("tbody", {}, ...names.map((n) => el("tr", {}, el("th", { scope: "row" }, n), ...last.map((p) => el("td", {}, glyph(stood(p, n))))))),
        el("tfoot", {}, el("tr", {}, el("td", {}, ""), ...last.map((p) => el("td", {}, made(p) ? `${p.signatures.length}/${p.of}` : p.phase === "done" ? "none" : p.phase))))),
      el("p", { class: "key council soft" }, ...["signed", "voted", "missing", "wrong"].map((w) => el("span", {}, glyph(w), words[w]))),
    ];
  });
}

function table(heads, rows) {
  return el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", { scope: "col", class: /^[#]/.test(h) ? "number" : null }, h.replace("#", ""))))), el("tbody", {}, ...rows));
}

function showCircuits() {
  const rank = { open: 0, closing: 1, building: 2, failed: 3, closed: 3 };
  const all = now.circuits.slice().sort((a, b) => rank[a.state] - rank[b.state] || (b.streams > 0) - (a.streams > 0) || Date.parse(b.ended ?? b.begun) - Date.parse(a.ended ?? a.begun)).slice(0, report ? 600 : 80);
  const several = many();
  put($("circuits"), JSON.stringify([all, chosen]), () => !all.length ? [el("p", { class: "soft" }, "No circuit yet.")] : [
    table(["circuit", ...(several ? ["client"] : []), "state", "for", "path", "#streams", "#cells in", "#out"], all.map((c) => el("tr", { class: chosen?.circuit === c.key ? "chosen" : null },
      el("td", {}, el("button", { class: "plain", "data-key": "row " + c.key, onclick: () => choose({ circuit: c.key }) }, swatch(c), String(c.id))),
      several ? el("td", {}, c.client) : null, el("td", {}, c.state), el("td", {}, c.purpose ?? ""), el("td", {}, c.path.join(" → ")), el("td", { class: "number" }, String(c.streams)),
      el("td", { class: "number" }, c.ended ? short(c.received) : short(c.in) + "/s"), el("td", { class: "number" }, c.ended ? short(c.sent) : short(c.out) + "/s")))),
  ]);
}

function showDownloads() {
  const all = now.downloads.slice().reverse();
  put($("downloads"), JSON.stringify(all), () => !all.length ? [el("p", { class: "soft" }, now.can.includes("fetch") ? "None yet: “Fetch a page” makes one." : "None yet.")] : [
    table(["at", "path", "#size", "#first byte", "#rate"], all.map((d) => el("tr", {}, el("td", {}, clock(since(d.at))),
      el("td", {}, d.error ? el("span", { class: "kind failed" }, d.error) : (d.path ?? []).join(" → ")), el("td", { class: "number" }, bytes(d.bytes)), el("td", { class: "number" }, ms(d.first_byte_ns)),
      el("td", { class: "number" }, d.error || d.took_ns <= d.first_byte_ns ? "–" : bytes(d.bytes / ((d.took_ns - d.first_byte_ns) / 1e9)) + "/s")))),
  ]);
}

let kind = "";
$("kinds").addEventListener("change", (e) => { kind = e.target.value; showEvents(); });

function showEvents() {
  const kinds = [...new Set(events.map((e) => e.kind))].sort();
  put($("kinds"), kinds.join(), () => [el("option", { value: "" }, "all"), ...kinds.map((k) => el("option", { value: k, selected: k === kind }, k))]);
  const all = events.filter((e) => !kind || e.kind === kind).slice(report ? 0 : -120).reverse();
  put($("events"), kind + all.length + " " + all[0]?.seq, () => !all.length ? [el("p", { class: "soft" }, "Nothing yet.")] : [
    table(["at", "kind", "node", "event"], all.map((e) => el("tr", {}, el("td", {}, clock(since(e.at))), el("td", {}, el("span", { class: "kind " + e.kind }, e.kind)),
      el("td", {}, e.node && nodeOf(e.node) && e.kind !== "circuit" ? el("button", { class: "plain", "data-key": "event " + e.seq, onclick: () => choose({ node: e.node }) }, e.node) : e.node ?? ""),
      el("td", {}, e.circuit ? el("button", { class: "plain", "data-key": "event " + e.seq, onclick: () => choose({ circuit: e.circuit }) }, e.text) : e.text)))),
  ]);
}

function showLegend() {
  const node = (name, ...more) => svg("svg", { viewBox: "-11 -8 22 16", "aria-hidden": "true", class: "nodes" }, svg("g", { class: "node " + name }, ...more));
  const dot = (r) => svg("circle", { class: "body", r });
  const rings = svg("svg", { viewBox: "-11 -8 22 16", "aria-hidden": "true" }, ...[[7.3, "--plot-1"], [5.6, "--card"], [3.9, "--plot-1"], [2.1, "--plot-2"]].map(([r, tint]) => {
    const c = svg("circle", { r });
    c.style.fill = `var(${tint})`;
    return c;
  }));
  $("legend").append(...[
    [node("relay guard", dot(6.5)), "guard"], [node("relay", dot(6.5)), "relay"], [node("relay exit", dot(6.5)), "exit"],
    [node("authority", svg("path", { class: "body", d: "M7 0L3.5 6.1H-3.5L-7 0L-3.5 -6.1H3.5z" })), "authority"],
    [node("relay", svg("circle", { class: "body", r: 3.5, cx: -6 }), svg("circle", { class: "body", r: 6, cx: 5 })), "slow, fast"],
    [node("relay down", dot(6.5), svg("path", { class: "mark", d: "M-3-3L3 3M3-3L-3 3" })), "down"],
    [node("relay frozen", dot(6.5), svg("path", { class: "mark", d: "M-2-3V3M2-3V3" })), "frozen"],
    [node("relay silent", dot(6.5), svg("path", { class: "mark", d: "M-3 0h.1M0 0h.1M3 0h.1" })), "silent"],
    [node("relay villain", svg("circle", { class: "ring", r: 7.5 }), dot(5)), "villain"],
    [rings, "cell, a ring a layer"],
  ].map(([picture, name]) => el("li", {}, picture, name)));
}
showLegend();

addEventListener("keydown", (e) => { if (e.key === "Escape" && chosen) choose(null); });

// turn asks for what is new, again and again: one request at a time, a second after the last answer.
let timer = 0, asking = false;
async function turn() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    let v = await ask("/story?after=" + (events.length ? events[events.length - 1].seq : 0));
    if (now && v.run !== now.run) {
      anew();
      v = await ask("/story?after=0");
    }
    trouble(null);
    show(v);
    await askLines();
  } catch (e) {
    trouble(now?.over || (now && !(e instanceof Refused) && e.message.startsWith("nobody answers")) ? new Error("The network has ended: this is the last that was seen.") : e);
  }
  asking = false;
  timer = setTimeout(turn, document.hidden ? 5000 : 1000);
}

if (report) {
  document.body.classList.add("report");
  show(report.story);
} else {
  addEventListener("hashchange", turn);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
  turn();
}
