// The plots: what went on, drawn by uPlot.

import { el, colour, onLooks } from "/shared/peel.js";
import { bytes, rate, each, figure, clock } from "/format.js";

// What is drawn, if the node has it: a metric's values of its label, in the order of their colours.
const plots = [
  { title: "Bytes on links", unit: rate, metric: "peel_link_bytes_total", values: { in: "read", out: "written" } },
  { title: "Cells of circuits", unit: each, metric: "peel_relay_cells_total", values: { "": "both ways" } },
  { title: "Circuits and streams", unit: figure, metric: "peel_relay_open", values: { circuits: "circuits", streams: "streams", extensions: "being extended", dials: "dials" } },
  { title: "Circuit handshakes", unit: each, metric: "peel_relay_handshakes_total", values: { answered: "answered", failed: "failed", busy: "refused as busy" } },
  { title: "Handshakes that wait", unit: figure, metric: "peel_relay_open", values: { handshakes: "waiting" } },
  { title: "Memory in queues", unit: bytes, metric: "peel_relay_queue_bytes", values: { cells: "cells for links", hosts: "data for hosts" }, budget: "peel_relay_queue_budget_bytes" },
  { title: "Links", unit: figure, metric: "peel_relay_links", values: { dialled: "dialled", nodes: "from nodes", clients: "from clients" } },
  { title: "Streams to the world", unit: each, metric: "peel_relay_exits_total", values: { connected: "connected", failed: "failed" } },
  { title: "Ended or refused", unit: each, metric: "peel_relay_drops_total",
    values: { breach: "breach", memory: "memory", circuit: "circuits for others", link: "links for others", rate: "rate of an address", stuck: "nobody took what waited", busy: "too much of a circuit or of all", one_hop: "an exit as the only relay" } },
  { title: "Circuits and streams", unit: figure, metric: "peel_client_open", values: { circuits: "circuits", building: "being built", streams: "streams" } },
  { title: "Memory", unit: bytes, metrics: { peel_resident_bytes: "resident", peel_heap_bytes: "heap" } },
  { title: "Goroutines and files", unit: figure, metrics: { peel_goroutines: "goroutines", peel_open_files: "files and connections" } },
];

// of finds the series of a plot: [label, values] each.
function of(plot, past) {
  const wanted = plot.metrics ? Object.entries(plot.metrics).map(([m, name]) => [m, "", name]) : Object.entries(plot.values).map(([v, name]) => [plot.metric, v, name]);
  return wanted.map(([m, v, name]) => [name, past.series.find((s) => s.metric === m && (s.value ?? "") === v)?.values]).filter(([, values]) => values);
}

const height = 152;
const pen = document.createElement("canvas").getContext("2d"); // which measures words
const twos = Array.from({ length: 50 }, (_, i) => 2 ** i);

class Plot {
  constructor(plot, names) {
    this.plot = plot;
    this.names = names;
    this.key = el("ul", { class: "key" });
    this.shown = names.map((name, i) => {
      const value = el("b");
      this.key.append(el("li", {}, el("span", { class: "swatch c" + (i + 1), "aria-hidden": "true" }), name + " ", value));
      return value;
    });
    this.draw = el("div", { class: "draw", tabindex: "0", role: "img", onkeydown: (e) => this.move(e), onblur: () => this.point(null) });
    this.table = el("div", { class: "scrolls" });
    this.details = el("details", { ontoggle: () => this.fill() }, el("summary", {}, "as a table"), this.table);
    this.card = el("section", { class: "card plot" }, el("h3", {}, plot.title), this.key, this.draw, this.details);
  }

  // show takes new data: the times, then the values of each name.
  show(past, data, days) {
    this.data = data;
    this.days = days;
    if (!this.u) this.make();
    this.u.setData(data);
    this.tell(null);
    this.fill();
  }

  make() {
    this.u?.destroy();
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--rule"), width: 1 }, ticks: { show: false }, font: "11px " + colour("--sans") };
    const unit = this.plot.unit;
    this.u = new uPlot({
      width: this.width(), height, legend: { show: false }, padding: [8, () => this.room(), 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { y: { range: (u, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, size: 26, gap: 6, space: () => 2 * this.room() + 16, values: (u, at) => at.map((t) => this.time(t)) },
        { ...axis, size: 66, space: 34, incrs: unit === bytes ? twos : undefined, values: (u, at) => at.map((v) => unit(v)) },
      ],
      series: [{}, ...this.names.map((name, i) => ({ label: name, stroke: colour("--plot-" + (i + 1)), width: 1.75, points: { show: true, size: 3, filter: alone } }))],
      hooks: { setCursor: [(u) => this.tell(u.cursor.idx)] },
    }, this.data, this.draw);
  }

  // time is what stands at a time of the axis.
  time(t) { return this.days ? clock(t, true) : clock(t, false).slice(0, this.brief() ? 8 : 5); }

  // room is what half of that takes: so much of the last one stands beyond the plot.
  room() {
    pen.font = "11px " + colour("--sans");
    return Math.ceil(pen.measureText(this.time(this.data[0].at(-1))).width / 2) + 4;
  }

  // brief says whether so little is drawn that times need their seconds.
  brief() { return this.data[0].at(-1) - this.data[0][0] < 600; }

  width() { return Math.max(200, this.draw.clientWidth); }

  resize() { this.u?.setSize({ width: this.width(), height }); }

  // tell shows the values at a time, or, without one, the newest.
  tell(at) {
    if (!this.data) return;
    const unit = this.plot.unit, times = this.data[0];
    const i = at ?? times.length - 1;
    this.shown.forEach((value, n) => {
      const v = this.data[n + 1][i];
      value.textContent = v === null || v === undefined ? "–" : unit(v);
    });
    const words = this.names.map((name, n) => {
      const seen = this.data[n + 1].filter((v) => v !== null);
      return name + ": " + this.shown[n].textContent + (seen.length ? ", most " + unit(Math.max(...seen)) : "");
    });
    this.draw.setAttribute("aria-label", this.plot.title + ", " + (at === null || at === undefined ? "now" : clock(times[i], this.days)) + ". " + words.join("; ") + ". Arrow keys go through the times.");
  }

  point(i) {
    if (!this.u) return;
    this.at = i;
    if (i === null) this.u.setCursor({ left: -10, top: -10 });
    else this.u.setCursor({ left: this.u.valToPos(this.data[0][i], "x"), top: 10 });
    this.tell(i);
  }

  move(e) {
    const last = this.data ? this.data[0].length - 1 : -1;
    const to = { ArrowLeft: (this.at ?? last + 1) - 1, ArrowRight: (this.at ?? last - 1) + 1, Home: 0, End: last, Escape: null }[e.key];
    if (to === undefined || last < 0) return;
    e.preventDefault();
    this.point(to === null ? null : Math.min(Math.max(to, 0), last));
  }

  // fill writes the table, if it is open: a dozen times, the newest first.
  fill() {
    if (!this.details.open || !this.data) return;
    const times = this.data[0], step = Math.max(1, Math.ceil(times.length / 12)), rows = [];
    for (let i = times.length - 1; i >= 0; i -= step) {
      rows.push(el("tr", {}, el("th", { scope: "row" }, clock(times[i], this.days)),
        ...this.names.map((_, n) => { const v = this.data[n + 1][i]; return el("td", { class: "number" }, v === null ? "–" : this.plot.unit(v)); })));
    }
    this.table.replaceChildren(el("table", {}, el("caption", { class: "unseen" }, this.plot.title),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "time"), ...this.names.map((name) => el("th", { scope: "col", class: "number" }, name)))), el("tbody", {}, ...rows)));
  }
}

// alone picks the values that have no neighbour, which no line would show.
function alone(u, series, show) {
  if (!show && show !== undefined && show !== null) return null;
  const v = u.data[series], picked = [];
  for (let i = 0; i < v.length; i++) if (v[i] !== null && (v[i - 1] ?? null) === null && (v[i + 1] ?? null) === null) picked.push(i);
  return picked;
}

const drawn = new Map();

// draw shows a history in a place, and returns whether there is anything to draw.
export function draw(place, past, days) {
  const length = past.series[0]?.values.length ?? 0;
  const times = Array.from({ length }, (_, i) => past.newest - (length - 1 - i) * past.every);
  let any = false;
  plots.forEach((plot, n) => {
    const series = of(plot, past);
    if (length < 2 || series.length === 0 || series.every(([, values]) => values.every((v) => v === null))) return;
    any = true;
    const names = series.map(([name]) => name), is = names.join();
    let p = drawn.get(n);
    if (p?.names.join() !== is) {
      const was = p?.card;
      p = new Plot(plot, names);
      drawn.set(n, p);
      if (was) was.replaceWith(p.card);
      else place.append(p.card);
    }
    p.show(past, [times, ...series.map(([, values]) => values)], days);
  });
  return any;
}

new ResizeObserver(() => drawn.forEach((p) => p.resize())).observe(document.body);
onLooks(() => drawn.forEach((p) => { if (p.data) { p.make(); p.u.setData(p.data); } }));
