// The picture of a network: nodes where they stay, circuits between them, and cells that move along these.
import { colour, onLooks } from "/shared/peel.js";

const svgNS = "http://www.w3.org/2000/svg";

export function svg(tag, attributes = {}, ...children) {
  const e = document.createElementNS(svgNS, tag);
  for (const [k, v] of Object.entries(attributes)) {
    if (v === null || v === undefined || v === false) continue;
    if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else e.setAttribute(k, v);
  }
  e.append(...children);
  return e;
}

// hues are the colours of circuits, in turn.
const tint = (circuit) => (circuit.id + (parseInt(/[0-9]+$/.exec(circuit.client)?.[0] ?? "0") % 6) * 5) % 6;
export const hue = (circuit) => "--plot-" + (1 + tint(circuit));

const natural = new Intl.Collator("en", { numeric: true }).compare;
const isExit = (n) => (n.flags ?? []).includes("Exit");
const isGuard = (n) => (n.flags ?? []).includes("Guard");

// around spreads n points over an ellipse, the same way apart along it, beginning at an angle.
function around(n, cx, cy, rx, ry, from) {
  const steps = 720, at = (i) => from + (2 * Math.PI * i) / steps;
  const point = (a) => [cx + rx * Math.cos(a), cy + ry * Math.sin(a), a];
  const lengths = [0];
  for (let i = 1; i <= steps; i++) {
    const [x0, y0] = point(at(i - 1)), [x1, y1] = point(at(i));
    lengths.push(lengths[i - 1] + Math.hypot(x1 - x0, y1 - y0));
  }
  const all = [];
  for (let i = 0, s = 0; i < n; i++) {
    const want = (lengths[steps] * (i + 0.5)) / n;
    while (lengths[s] < want) s++;
    all.push(point(at(s)));
  }
  return all;
}

// angleWhere is the angle at which a part of an ellipse's length lies on either side of the direction 0.
function angleWhere(part, rx, ry) {
  let whole = 0, sum = 0;
  const d = (a) => Math.hypot(rx * Math.sin(a), ry * Math.cos(a));
  for (let a = 0; a < Math.PI; a += 0.005) whole += d(a);
  for (let a = 0; a < Math.PI; a += 0.005) {
    sum += d(a);
    if (sum >= whole * part) return a;
  }
  return Math.PI;
}

// place says where nodes are: clients on one side, the world on the other, relays around with the exits towards the world, the
// authorities in the middle. It depends on who there is and on the size alone, so that nothing moves in a run.
function place(nodes, exits, width, height) {
  const tall = height > width * 0.95;
  const w = tall ? height : width, h = tall ? width : height; // w is along the way of a cell
  const where = new Map();
  const put = (name, u, v, a) => where.set(name, tall ? { x: v, y: u, a: Math.PI / 2 - a } : { x: u, y: v, a });
  const names = (role) => nodes.filter((n) => n.role === role).map((n) => n.name).sort(natural);
  let ends = 64; // from one client or server to the next
  const column = (all, u, a) => {
    const step = Math.min(64, (h - 60) / all.length);
    ends = Math.min(ends, step);
    all.forEach((name, i) => put(name, u, h / 2 + (i - (all.length - 1) / 2) * step, a));
  };
  column(names("client"), tall ? 40 : 52, Math.PI);
  column(names("server"), w - (tall ? 40 : 52), 0);
  const relays = names("relay").sort((a, b) => (exits.has(b) - exits.has(a)) || natural(a, b));
  const named = relays.length <= 48; // a ring with room for names
  const rx = w / 2 - (tall ? 96 : named ? 178 : 130), ry = h / 2 - (tall ? 74 : 44);
  const rings = relays.length > 110 ? 3 : relays.length > 48 ? 2 : 1;
  const shares = rings === 1 ? [1] : rings === 2 ? [0.58, 0.42] : [0.42, 0.33, 0.25];
  let room = 60;
  for (let ring = 0; ring < rings; ring++) {
    // Each ring has its part of the exits, and of the others.
    const mine = relays.filter((_, i) => {
      let r = 0, x = (i * 0.6180339887) % 1;
      while (r < rings - 1 && x >= shares[r]) x -= shares[r++];
      return r === ring;
    });
    const scale = 1 - 0.2 * ring, e = mine.filter((name) => exits.has(name)).length;
    const start = -angleWhere(mine.length ? e / mine.length : 0, rx * scale, ry * scale);
    const perimeter = Math.PI * scale * (rx + ry);
    room = Math.min(room, perimeter / Math.max(1, mine.length));
    around(mine.length, w / 2, h / 2, rx * scale, ry * scale, start).forEach(([u, v, a], i) => put(mine[i], u, v, a));
  }
  const council = names("authority"), c = Math.min(1, council.length / 5);
  if (council.length === 1) put(council[0], w / 2, h / 2, -Math.PI / 2);
  else around(council.length, w / 2, h / 2, Math.min(rx * 0.3, 96) * (0.5 + c / 2), Math.min(ry * 0.34, 70) * (0.6 + c / 2.5), -Math.PI / 2 - Math.PI / council.length)
    .forEach(([u, v, a], i) => put(council[i], u, v, a));
  return { where, tall, ends, crowd: relays.length, labels: rings === 1 && room > 30, biggest: Math.max(2.5, Math.min(14, room / 2 - 4, rings > 1 ? ry * 0.1 - 3 : 14)) };
}

// bend is the curve of one hop: a little towards the middle, and a little beside that of other circuits.
function bend(a, b, cx, cy, id) {
  const mx = (a.x + b.x) / 2, my = (a.y + b.y) / 2, dx = b.x - a.x, dy = b.y - a.y, l = Math.hypot(dx, dy) || 1;
  const side = (((id * 7) % 5) - 2) * 7;
  return { a, b, c: { x: mx + (cx - mx) * 0.22 - (dy / l) * side, y: my + (cy - my) * 0.22 + (dx / l) * side } };
}

const along = ({ a, b, c }, t) => {
  const s = 1 - t;
  return [s * s * a.x + 2 * s * t * c.x + t * t * b.x, s * s * a.y + 2 * s * t * c.y + t * t * b.y];
};
const lengthOf = ({ a, b, c }) => (Math.hypot(b.x - a.x, b.y - a.y) + Math.hypot(c.x - a.x, c.y - a.y) + Math.hypot(b.x - c.x, b.y - c.y)) / 2;

const speed = 190; // of a drawn cell, in pixels a second
const mostDrawn = 700; // cells at a time

// Graph draws into host. choose is called with {node} or {circuit} when one is chosen, and with null.
export class Graph {
  constructor(host, choose) {
    this.host = host;
    this.choose = choose;
    this.links = svg("svg", { class: "links", "aria-hidden": "true" });
    this.canvas = document.createElement("canvas");
    this.nodes = svg("svg", { class: "nodes", role: "group", "aria-label": "Nodes: arrow keys go from one to the next, Enter tells its story" });
    host.append(this.links, this.canvas, this.nodes);
    this.parts = new Map(); // of nodes, by name
    this.exits = new Set();
    this.cells = []; // that are drawn
    this.pictures = new Map(); // of cells
    this.small = 1; // how large a cell is drawn: the smaller, the more circuits there are
    this.due = new Map(); // by circuit and direction: parts of a cell that wait to be drawn
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.who = "";
    new ResizeObserver(() => { if (this.shown) this.show(this.shown); }).observe(host);
    onLooks(() => this.tint());
    this.tint();
    this.nodes.addEventListener("keydown", (e) => this.key(e));
    this.links.addEventListener("click", (e) => { if (e.target === this.links) this.choose(null); });
  }

  // anew forgets the network that was shown.
  anew() {
    [this.who, this.chosen, this.cells] = ["", null, []];
    this.exits.clear();
    this.due.clear();
  }

  // motion turns the moving of cells on or off.
  motion(on) {
    this.still = !on;
    this.cells = [];
    if (this.shown) this.show(this.shown);
  }

  tint() {
    this.tints = [1, 2, 3, 4, 5, 6].map((i) => colour("--plot-" + i));
    this.card = colour("--card");
    this.pictures.clear();
  }

  // show draws a snapshot.
  show(v) {
    this.shown = v;
    const width = this.host.clientWidth, height = this.host.clientHeight;
    if (!width || !height) return;
    for (const n of v.nodes) if (n.role === "relay" && !this.parts.has(n.name) && isExit(n)) this.exits.add(n.name);
    const who = v.nodes.map((n) => n.name).join() + width + "x" + height;
    if (who !== this.who) {
      this.who = who;
      Object.assign(this, place(v.nodes, this.exits, width, height));
      this.width = width;
      this.height = height;
      for (const s of [this.links, this.nodes]) s.setAttribute("viewBox", `0 0 ${width} ${height}`);
      const scale = devicePixelRatio || 1;
      this.canvas.width = width * scale;
      this.canvas.height = height * scale;
      this.canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
      this.cells = [];
      this.pictures.clear();
      this.nodes.replaceChildren();
      this.parts.clear();
    }
    this.showNodes(v);
    this.showWays(v);
    if (!this.running) {
      this.running = true;
      this.before = performance.now();
      requestAnimationFrame((t) => this.frame(t));
    }
  }

  showNodes(v) {
    const most = Math.max(1, ...v.nodes.map((n) => n.bandwidth ?? 0));
    for (const n of v.nodes) {
      const at = this.where.get(n.name);
      if (!at) continue;
      let p = this.parts.get(n.name);
      if (!p) this.parts.set(n.name, (p = this.node(n, at)));
      const r = n.role === "relay" ? this.biggest * (0.5 + 0.5 * Math.sqrt((n.bandwidth ?? 0) / most)) : n.role === "authority" ? 9 : Math.max(2, Math.min(15, this.ends * 0.46));
      const key = [r, n.state].join();
      if (p.key !== key) {
        p.key = key;
        shape(p, n, r);
      }
      const busy = n.rate > 0 && n.state === "up";
      p.halo.setAttribute("r", busy ? r + 3 + 2.6 * Math.log10(1 + n.rate) : 0);
      const chosen = this.chosen?.node === n.name;
      const name = ["node", n.role, n.state, n.role === "relay" && isExit(n) && "exit", n.role === "relay" && isGuard(n) && "guard",
        n.villain && "villain", busy && "busy", chosen && "chosen"].filter(Boolean).join(" ");
      if (p.g.getAttribute("class") !== name) p.g.setAttribute("class", name);
      const label = `${n.name}, ${n.role}${n.role === "relay" && isExit(n) ? ", exit" : ""}, ${n.state}${n.villain ? ", villain: " + n.villain : ""}`;
      if (p.g.getAttribute("aria-label") !== label) {
        p.g.setAttribute("aria-label", label);
        p.title.textContent = label;
      }
    }
    if (![...this.parts.values()].some((p) => p.g.getAttribute("tabindex") === "0")) this.parts.values().next().value?.g.setAttribute("tabindex", "0");
  }

  node(n, at) {
    const p = { halo: svg("circle", { class: "halo", r: 0 }), body: svg("path", { class: "body" }), ring: svg("circle", { class: "ring" }), mark: svg("path", { class: "mark" }),
      focus: svg("circle", { class: "focus" }), horns: svg("path", { class: "horns" }), title: svg("title"), text: svg("text", { class: "name" }) };
    p.g = svg("g", { tabindex: "-1", role: "button", transform: `translate(${at.x.toFixed(1)} ${at.y.toFixed(1)})`, "data-node": n.name,
      onclick: () => this.choose({ node: n.name }), onfocus: () => this.rove(n.name) },
    p.title, p.halo, p.focus, p.ring, p.body, p.horns, p.mark, p.text);
    const cos = Math.cos(at.a), sin = Math.sin(at.a), far = n.role === "relay" ? 24 : n.role === "authority" ? 14 : 22;
    let anchor = "middle", x = 0, y = sin > 0 ? far + 9 : -far;
    if (n.role === "client" || n.role === "server") y = far + 9;
    else if (Math.abs(cos) > (n.role === "authority" ? 0.25 : 0.32)) {
      anchor = cos > 0 ? "start" : "end";
      x = cos * far + (cos > 0 ? 1 : -1);
      y = sin * far + 4;
    }
    Object.entries({ "text-anchor": anchor, x: x.toFixed(1), y: y.toFixed(1) }).forEach(([k, v]) => p.text.setAttribute(k, v));
    const squeezed = this.tall && this.crowd > 14 && anchor === "middle"; // names at the ends of a narrow ring would lie on each other
    if (n.role === "relay" ? this.labels && !squeezed : n.role === "authority" ? this.width > 560 : this.ends > (this.tall ? 58 : 46)) p.text.textContent = n.name;
    this.nodes.append(p.g);
    return p;
  }

  showWays(v) {
    const cx = this.width / 2, cy = this.height / 2, drawn = [];
    const at = (name) => this.where.get(name);
    const world = v.nodes.find((n) => n.role === "server")?.name;
    for (const l of v.links) {
      const a = at(l.a), b = at(l.b);
      if (a && b) drawn.push(svg("line", { x1: a.x.toFixed(1), y1: a.y.toFixed(1), x2: b.x.toFixed(1), y2: b.y.toFixed(1) }));
    }
    this.ways = new Map();
    const touch = [];
    for (const c of v.circuits) {
      const over = c.state === "closed" || c.state === "failed";
      const chosen = this.chosen?.circuit === c.key || (this.chosen?.node && c.path.includes(this.chosen.node) && !over);
      if (over && !chosen && Date.parse(v.now) - Date.parse(c.ended) > 2500) continue;
      const points = [c.client, ...c.path, ...(world && c.streams > 0 ? [world] : [])].map(at).filter(Boolean);
      const hops = points.slice(1).map((b, i) => bend(points[i], b, cx, cy, c.id));
      if (!hops.length) continue;
      this.ways.set(c.key, { c, hops, lengths: hops.map(lengthOf), relays: c.path.length });
      const d = `M${points[0].x.toFixed(1)} ${points[0].y.toFixed(1)}` +
        hops.map(({ b, c }) => `Q${c.x.toFixed(1)} ${c.y.toFixed(1)} ${b.x.toFixed(1)} ${b.y.toFixed(1)}`).join("");
      const kind = ["way", over ? "fading" : c.state, c.streams > 0 && "used", chosen && "chosen"].filter(Boolean).join(" ");
      const path = svg("path", { d, class: kind, "data-circuit": c.key });
      path.style.color = `var(${hue(c)})`;
      if ((this.still || v.over) && !over) path.style.strokeWidth = 1.5 + 1.1 * Math.log10(1 + c.in + c.out);
      drawn.push(path);
      if (!over) touch.push(svg("path", { d, class: "touch", onclick: () => this.choose({ circuit: c.key }) }, svg("title", {}, document.createTextNode(`circuit ${c.id}: ${c.path.join(" → ")}`))));
    }
    this.links.replaceChildren(...drawn, ...touch);
    const used = v.circuits.filter((c) => c.streams > 0).length, small = used > 20 ? 0.6 : used > 10 ? 0.8 : 1;
    if (small !== this.small) {
      this.small = small;
      this.pictures.clear();
    }
    this.host.classList.toggle("many", small < 1);
    this.dimmed = drawn.some((p) => p.classList.contains("chosen"));
    this.host.classList.toggle("focused", this.dimmed);
  }

  // select marks what was chosen: {node}, {circuit} or null.
  select(chosen) {
    this.chosen = chosen;
    if (this.shown) this.show(this.shown);
  }

  // frame moves the cells that are drawn, and has new ones begin at the rate of their circuit: one more for each time the rate is about
  // three times as high.
  frame(now) {
    requestAnimationFrame((t) => this.frame(t));
    if (now - this.before < 28 || this.shown.pace === "paused") return; // some thirty pictures a second are enough
    const span = Math.min(0.1, (now - this.before) / 1000);
    this.before = now;
    const g = this.canvas.getContext("2d");
    if (this.inked) g.clearRect(0, 0, this.width, this.height);
    this.inked = false;
    if (!this.still && !this.shown.over && !document.hidden && this.ways) {
      for (const [key, way] of this.ways) {
        for (const out of [true, false]) {
          const rate = out ? way.c.out : way.c.in;
          if (!(rate > 0) || way.c.ended) continue;
          const k = key + out, due = (this.due.get(k) ?? Math.random()) + span * Math.min(16, 0.7 + 2.4 * Math.log10(1 + rate));
          this.due.set(k, due % 1);
          if (due >= 1 && this.cells.length < mostDrawn) this.cells.push({ key, out, hop: out ? 0 : way.hops.length - 1, t: 0 });
        }
      }
      this.inked = this.cells.length > 0;
      this.cells = this.cells.filter((cell) => this.move(cell, span, g));
    }
  }

  move(cell, span, g) {
    const way = this.ways.get(cell.key);
    if (!way || !way.hops[cell.hop]) return false;
    cell.t += (span * speed) / Math.max(20, way.lengths[cell.hop]);
    if (cell.t >= 1) {
      cell.t -= 1;
      cell.hop += cell.out ? 1 : -1;
      if (!way.hops[cell.hop]) return false;
    }
    const [x, y] = along(way.hops[cell.hop], cell.out ? cell.t : 1 - cell.t);
    const dim = this.dimmed && !(this.chosen.circuit === cell.key || way.c.path.includes(this.chosen.node));
    g.globalAlpha = dim ? 0.15 : 1;
    const layers = Math.max(0, way.relays - cell.hop); // one for each relay that still peels it, or has wrapped it
    const { picture, r } = this.drawn(tint(way.c), layers);
    g.drawImage(picture, x - r, y - r, 2 * r, 2 * r);
    g.globalAlpha = 1;
    return true;
  }

  // drawn is the picture of a cell of a circuit with a tint, and with so many layers: drawn once, and shown often.
  drawn(tint, layers) {
    const key = tint + 10 * layers;
    const there = this.pictures.get(key);
    if (there) return there;
    const r = (2.1 + 1.75 * layers) * this.small + 1, scale = 2 * (devicePixelRatio || 1), picture = document.createElement("canvas");
    picture.width = picture.height = Math.ceil(2 * r * scale);
    const g = picture.getContext("2d");
    g.scale(picture.width / (2 * r), picture.width / (2 * r));
    for (let i = layers; i >= 0; i--) {
      g.beginPath();
      g.arc(r, r, (2.1 + 1.75 * i) * this.small, 0, 2 * Math.PI);
      g.fillStyle = i === 0 ? this.tints[1] : i % 2 || (i === 1 && layers % 2 === 0) ? this.card : this.tints[tint];
      g.fill();
      if (i === layers) {
        g.lineWidth = this.small;
        g.strokeStyle = this.tints[tint];
        g.stroke();
      }
    }
    const made = { picture, r };
    this.pictures.set(key, made);
    return made;
  }

  rove(name) {
    for (const [n, p] of this.parts) p.g.setAttribute("tabindex", n === name ? "0" : "-1");
  }

  // key goes to the nearest node in a direction, chooses, or lets go.
  key(e) {
    const here = e.target.closest?.("[data-node]")?.dataset.node;
    if (!here) return;
    if (e.key === "Enter" || e.key === " ") this.choose({ node: here });
    else if (e.key === "Escape") this.choose(null);
    else {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
      if (!way) return;
      const a = this.where.get(here);
      let best = null, least = Infinity;
      for (const [name, b] of this.where) {
        const dx = b.x - a.x, dy = b.y - a.y, on = dx * way[0] + dy * way[1], off = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
        if (name !== here && on > 1 && on + 2 * off < least) [best, least] = [name, on + 2 * off];
      }
      if (best) this.parts.get(best).g.focus();
    }
    e.preventDefault();
  }
}

// shape draws a node: circles are relays, a hexagon an authority, a square who asks or answers.
function shape(p, n, r) {
  const f = (x) => x.toFixed(1);
  const circle = `M${f(-r)} 0a${f(r)} ${f(r)} 0 1 0 ${f(2 * r)} 0a${f(r)} ${f(r)} 0 1 0 ${f(-2 * r)} 0z`;
  const six = "M" + [0, 1, 2, 3, 4, 5].map((i) => f(r * Math.cos((i * Math.PI) / 3)) + " " + f(r * Math.sin((i * Math.PI) / 3))).join("L") + "z";
  const k = r * 0.86, c = 5, square = `M${f(-k + c)} ${f(-k)}H${f(k - c)}q${c} 0 ${c} ${c}V${f(k - c)}q0 ${c} ${-c} ${c}H${f(-k + c)}q${-c} 0 ${-c} ${-c}V${f(-k + c)}q0 ${-c} ${c} ${-c}z`;
  p.body.setAttribute("d", n.role === "relay" ? circle : n.role === "authority" ? six : square);
  p.ring.setAttribute("r", f(r + 2.5));
  p.focus.setAttribute("r", f(r + 7));
  p.horns.setAttribute("d", `M${f(-r * 0.9)} ${f(-r * 0.6)}l${f(-1.5)} -8l7 4zM${f(r * 0.9)} ${f(-r * 0.6)}l1.5 -8l-7 4z`);
  const s = Math.min(6, r * 0.45);
  let mark = "";
  if (n.state === "down") mark = `M${f(-s)} ${f(-s)}L${f(s)} ${f(s)}M${f(s)} ${f(-s)}L${f(-s)} ${f(s)}`;
  else if (n.state === "frozen") mark = `M${f(-s * 0.6)} ${f(-s)}V${f(s)}M${f(s * 0.6)} ${f(-s)}V${f(s)}`;
  else if (n.state === "silent") mark = `M${f(-s)} 0h.1M0 0h.1M${f(s)} 0h.1`;
  else if (r < 12 && n.role !== "relay") mark = "";
  else if (n.role === "client") mark = "M-6 4V-5H6V4zM-9 7H9"; // a computer
  else if (n.role === "server") mark = "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0 -14 0zM-7 0H7M0 -7q-6 7 0 14M0 -7q6 7 0 14"; // a globe
  p.mark.setAttribute("d", mark);
  p.mark.style.strokeWidth = n.role === "client" || n.role === "server" ? 1.4 : "";
}
