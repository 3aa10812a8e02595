// The curves of a run, with marks where its weather changed or a node was killed.
import { colour, onLooks } from "/shared/peel.js";

const si = ["", "k", "M", "G", "T"];

// short writes a number in at most four letters or so: 1.2 M.
export function short(n) {
  let i = 0;
  while (n >= 999.5 && i < si.length - 1) [n, i] = [n / 1000, i + 1];
  return (n >= 100 || n === Math.round(n) ? Math.round(n) : n.toFixed(1)) + (si[i] ? " " + si[i] : "");
}
export const bytes = (n) => short(n) + (n >= 999.5 ? "B" : " B");

// clock is a time since the start, as 1:02:03 or 2:03.
export function clock(seconds) {
  const s = Math.max(0, Math.floor(seconds)), two = (n) => String(n).padStart(2, "0");
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  return (d ? d + "d " : "") + (s >= 3600 ? h + ":" + two(m) : m) + ":" + two(s % 60);
}

// Chart is a plot of some series: {name, property, unit, points} each.
export class Chart {
  constructor(host, lines, unit) {
    Object.assign(this, { host, lines, unit, marks: [] });
    onLooks(() => { this.plot?.destroy(); this.plot = null; if (this.data) this.show(this.data, this.marks); });
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(host);
  }

  size() { return { width: Math.max(160, this.host.clientWidth), height: 168 }; }

  show(data, marks) {
    this.data = data;
    this.marks = marks;
    if (this.plot) {
      this.plot.setData(data);
      return this.newest();
    }
    const soft = colour("--soft"), rule = colour("--rule"), write = this.unit;
    const axis = { stroke: soft, grid: { stroke: rule, width: 1 }, ticks: { show: false }, font: "11px " + colour("--sans") };
    this.plot = new uPlot({
      ...this.size(),
      padding: [8, 28, 0, 0], // half of 1:23:45 stands beyond the plot
      cursor: { drag: { x: false, y: false }, points: { size: 6 } },
      legend: { show: true, live: true },
      scales: { x: { time: false, range: (_, low, high) => [low ?? 0, Math.max(high ?? 0, (low ?? 0) + 20)] }, y: { range: (_, low, high) => [0, Math.max(high ?? 0, 1) * 1.1] } },
      axes: [
        { ...axis, size: 26, values: (_, all) => all.map(clock), space: 64 },
        { ...axis, size: 58, values: (_, all) => all.map(write), space: 32 },
      ],
      series: [
        { label: "at", value: (_, v) => (v === null ? "–" : clock(v)) },
        ...this.lines.map((l) => ({
          label: l.name, stroke: colour(l.property), width: 1.75, spanGaps: true, points: { show: !!l.points, size: 5, fill: colour(l.property) }, value: (_, v) => (v === null || v === undefined ? "–" : write(v)),
          fill: l.ground ? colour(l.property) + "1c" : undefined,
        })),
      ],
      hooks: { drawClear: [(u) => this.drawMarks(u)], setCursor: [() => this.newest()] },
    }, data, this.host);
    this.newest();
  }

  // newest has the legend tell the newest values where nobody points at others.
  newest() {
    const u = this.plot;
    if (!u || (u.cursor.left >= 0 && u.cursor.idx !== null) || !u.data[0].length) return;
    const last = u.data[0].length - 1;
    let i = last;
    while (i >= 0 && u.data.slice(1).every((d) => d[i] === null || d[i] === undefined)) i--;
    u.setLegend({ idx: i < 0 ? last : i }, false);
  }

  // drawMarks draws a line at each mark, below the curves.
  drawMarks(u) {
    const g = u.ctx, shown = this.marks.filter((m) => m.t >= u.scales.x.min && m.t <= u.scales.x.max), tints = { weather: colour("--plot-1"), villain: colour("--bad"), kill: colour("--bad"), freeze: colour("--plot-4"), restore: colour("--good") };
    g.save();
    g.setLineDash([3, 3]);
    g.globalAlpha = shown.length > 8 ? 0.35 : 0.8;
    for (const m of shown) {
      const x = Math.round(u.valToPos(m.t, "x", true));
      g.beginPath();
      g.strokeStyle = tints[m.kind] ?? colour("--soft");
      g.moveTo(x, u.bbox.top);
      g.lineTo(x, u.bbox.top + u.bbox.height);
      g.stroke();
    }
    g.restore();
  }
}
