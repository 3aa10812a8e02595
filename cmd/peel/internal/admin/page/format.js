// How values are written.

function scaled(n, step, units) {
  let i = 0;
  while (Math.abs(n) >= step && i < units.length - 1) { n /= step; i++; }
  return figure(n) + " " + units[i];
}

// Memory is in powers of two; what goes over links, and what may, in powers of ten, as configurations give it (units.go does the same).
const decimal = ["B", "kB", "MB", "GB", "TB"];
export const bytes = (n) => scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
export const bulk = (n) => scaled(n, 1000, decimal);
export const rate = (n) => bulk(n) + "/s";
export const offer = (n) => rate(n) + (n > 0 ? " (" + scaled(8 * n, 1000, ["bit", "kbit", "Mbit", "Gbit", "Tbit"]) + "/s)" : "");
export const each = (n) => figure(n) + "/s";

// figure is a number with as many digits as say something.
export function figure(n) {
  const most = Math.abs(n) >= 100 || Number.isInteger(n) ? 0 : Math.abs(n) >= 10 ? 1 : 2;
  return n.toLocaleString("en", { maximumFractionDigits: most });
}

const steps = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

// span is how long something is, in its largest unit.
export function span(seconds) {
  const [size, name] = steps.find(([s]) => Math.abs(seconds) >= s * (s === 1 ? 0 : 2)) ?? steps[3];
  const n = Math.round(Math.abs(seconds) / size);
  return n + " " + name + (n === 1 ? "" : "s");
}

export const isTime = (v) => typeof v === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(v);

// moment is a time, and how far off it is.
export function moment(text, now) {
  const at = new Date(text), off = (at - now) / 1000;
  if (at.getFullYear() < 1971) return "never";
  const year = at.getFullYear() === now.getFullYear() ? undefined : "numeric";
  const when = at.toLocaleString("en-GB", { year, month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
  return when + " (" + (off < 0 ? span(off) + " ago" : "in " + span(off)) + ")";
}

export const clock = (unix, withDay) =>
  new Date(unix * 1000).toLocaleString("en-GB", withDay ? { weekday: "short", hour: "2-digit", minute: "2-digit" } : { hour: "2-digit", minute: "2-digit", second: "2-digit" });
