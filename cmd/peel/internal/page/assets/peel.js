// How a page asks the program that serves it (spec/admin.md, section 5). The token comes in the fragment of the address, is taken
// out of it, and stays in this tab; it goes nowhere but into the Authorization header of requests to where the page came from.

const name = "peel-token";

function token() {
  const found = /^#token=([\w-]{43})$/.exec(location.hash);
  if (found) {
    sessionStorage.setItem(name, found[1]);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(name) ?? "";
}

// Refused is thrown where the token is missing or wrong: only a new address helps.
export class Refused extends Error {}

// ask reads a path, or with {method: "POST"} does an action, and returns the JSON of the answer. It throws Refused, or an Error
// whose message says what to show.
export async function ask(path, options = {}) {
  const headers = { Authorization: "Bearer " + token(), ...(options.headers ?? {}) };
  let answer;
  try {
    answer = await fetch(path, { signal: AbortSignal.timeout(10000), ...options, headers, cache: "no-store", redirect: "error" });
  } catch {
    throw new Error("nobody answers at " + location.host);
  }
  if (answer.status === 401) throw new Refused("the token is missing or wrong");
  let body;
  try {
    body = await answer.json();
  } catch {
    throw new Error("the answer to " + path + " cannot be read");
  }
  if (!answer.ok) throw new Error(body.error ?? "the answer to " + path + " was " + answer.status);
  return body;
}

// watch asks for paths again and again, every so many milliseconds after the last answer and at once when the page is looked at
// again. show gets the answers, in order; told gets the error of a try that failed, or null when one went well.
export function watch(paths, every, show, told) {
  let timer = 0, running = false;
  async function turn() {
    if (running) return;
    running = true;
    clearTimeout(timer);
    try {
      const all = await Promise.all(paths.map((p) => ask(p)));
      told(null);
      show(...all);
    } catch (e) {
      told(e);
    }
    running = false;
    timer = setTimeout(turn, document.hidden ? 6 * every : every);
  }
  addEventListener("hashchange", turn);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
  turn();
}

// el makes an element: attributes by name ("on…" are listeners), then children, of which strings become text and never markup.
export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) {
    if (v === null || v === undefined || v === false) continue;
    if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else if (k === "class") e.className = v;
    else e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

// colour is a colour of the stylesheet, by the name of its property, as it is now (light or dark).
export const colour = (property) => getComputedStyle(document.documentElement).getPropertyValue(property).trim();

// onLooks calls do when light turns to dark or back.
export const onLooks = (action) => matchMedia("(prefers-color-scheme: dark)").addEventListener("change", action);
