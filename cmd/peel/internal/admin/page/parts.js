// How a status is shown: a card a part, whatever parts a node has.

import { el } from "/shared/peel.js";
import { bytes, bulk, offer, figure, isTime, moment } from "/format.js";

const titles = {
  relay: "Since it began", links: "Links", limits: "Places and memory", directory: "Directory", offer: "What it offers", keys: "Keys", traffic: "Traffic and quota",
  authority: "Authority", bootstrap: "Start", guards: "Guards", use: "In use", doors: "Doors", connections: "Connections of programs", dns: "Names",
};

const words = (name) => name.replaceAll("_", " ");
const sentence = (name) => titles[name] ?? words(name).replace(/^./, (c) => c.toUpperCase());

// value is one value as text or as an element.
function value(name, v, now) {
  if (v === null || v === undefined || v === "") return "–";
  if (typeof v === "boolean") return v ? "yes" : "no";
  if (typeof v === "number") return /bytes_a_second$/.test(name) ? offer(v) : /_MB$/.test(name) ? bulk(1e6 * v) : /bytes/.test(name) ? bytes(v) : /seconds$/.test(name) ? figure(v) + " s" : figure(v);
  if (isTime(v)) return moment(v, now);
  if (Array.isArray(v)) {
    if (v.length === 0) return "none";
    return el("ul", {}, ...v.map((x) => el("li", {}, value(name, x, now))));
  }
  if (typeof v === "object") return list(v, now);
  return /^[a-z2-7]{52}$/.test(v) ? el("code", {}, v) : String(v);
}

const title = (name) => words(name.replace(/_bytes_a_second$|_bytes$|_MB$/, ""));

function list(part, now) {
  return el("dl", {}, ...Object.entries(part).filter(([, v]) => !isTable(v)).map(([name, v]) => {
    const shown = value(name, v, now);
    const long = shown instanceof Element && (shown.tagName === "CODE" || shown.tagName === "DL" || shown.children.length > 1);
    return el("div", { class: long ? "long" : null }, el("dt", {}, title(name)), el("dd", {}, shown));
  }));
}

const isTable = (v) => Array.isArray(v) && v.length > 0 && v.every((x) => x && typeof x === "object" && !Array.isArray(x));

function table(name, rows, now) {
  const columns = [...new Set(rows.flatMap((r) => Object.keys(r)))];
  const isNumber = (c) => rows.every((r) => r[c] === undefined || typeof r[c] === "number");
  return el("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": sentence(name) }, el("table", {}, el("caption", { class: "unseen" }, sentence(name)),
    el("thead", {}, el("tr", {}, ...columns.map((c) => el("th", { scope: "col", class: isNumber(c) ? "number" : null }, title(c))))),
    el("tbody", {}, ...rows.map((r) => el("tr", {}, ...columns.map((c) => el("td", { class: isNumber(c) ? "number" : null }, value(c, r[c], now))))))));
}

// places is a table of what there is of how much, with a bar each.
function places(rows) {
  return el("dl", {}, ...rows.map((r) => {
    const write = r.unit === "bytes" ? bytes : figure;
    const part = r.most > 0 ? r.now / r.most : 0;
    const bar = el("i", { class: part > 0.8 ? "much" : null });
    bar.style.width = Math.min(100, part > 0 ? Math.max(1, 100 * part) : 0) + "%";
    return el("div", { class: "place" }, el("dt", {}, r.what),
      el("dd", {}, write(r.now) + " of " + write(r.most)), el("span", { class: "fill", "aria-hidden": "true" }, bar));
  }));
}

const isPlaces = (v) => isTable(v) && v.every((r) => "what" in r && "now" in r && "most" in r);

function body(name, part, now) {
  if (isPlaces(part)) return [places(part)];
  if (isTable(part)) return [table(name, part, now)];
  if (Array.isArray(part) || typeof part !== "object" || part === null) return [el("p", {}, value(name, part, now))];
  return [list(part, now), ...Object.entries(part).filter(([, v]) => isTable(v)).flatMap(([k, v]) => [el("h4", {}, sentence(k)), table(k, v, now)])];
}

// show puts the parts of a status, all but the first, in a place. What has the focus keeps it: only cards that changed are replaced.
export function show(place, status) {
  const now = new Date(status.node.now);
  for (const [name, part] of Object.entries(status)) {
    if (name === "node") continue;
    const text = JSON.stringify(part) + now.toISOString().slice(0, 16);
    let card = place.querySelector('[data-part="' + CSS.escape(name) + '"]');
    if (!card) {
      card = el("section", { class: "card part", "data-part": name });
      place.append(card);
    }
    if (card.dataset.text === text) continue;
    card.dataset.text = text;
    const inside = body(name, part, now);
    card.classList.toggle("wide", inside.some((e) => e.querySelectorAll("thead th").length > 4));
    card.replaceChildren(el("h3", {}, sentence(name)), ...inside);
  }
}
