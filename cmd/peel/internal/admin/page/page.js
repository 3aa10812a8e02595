// The status page: asks the node every ten seconds, and shows what it says.

import { Refused, ask, el, watch } from "/shared/peel.js";
import { span } from "/format.js";
import { draw } from "/plots.js";
import { show as showParts } from "/parts.js";

const every = 10000;
const at = (id) => document.getElementById(id);
let chosen = "hour", last = null;

function head(node) {
  const name = node.nickname ? node.nickname + ", a Peel " + node.kind : "Peel " + node.kind + " at " + location.host;
  document.title = (node.ready ? "" : "… ") + name;
  at("title").textContent = name;
  sign(node.ready ? "good" : "warn", node.ready ? "ready" : "waiting: " + node.waiting_for);
  at("facts").textContent = node.version + ", running for " + span((new Date(node.now) - new Date(node.started)) / 1000) + ", seen at " + new Date().toLocaleTimeString("en-GB");
  const warnings = node.warnings ?? [];
  at("warnings").hidden = warnings.length === 0;
  if (at("warnings").dataset.text !== warnings.join("\n")) {
    at("warnings").dataset.text = warnings.join("\n");
    at("warnings").replaceChildren(...warnings.map((w) => el("li", {}, w)));
  }
}

function sign(kind, text) {
  const s = at("state");
  s.className = "sign " + kind;
  if (s.textContent !== text) s.textContent = text;
}

function history(past) {
  const any = draw(at("plots"), past, past.every > 60);
  at("nothing").hidden = any;
  at("nothing").textContent = past.every > 60
    ? "No data yet: of two days a value is kept every five minutes, and lines are drawn from the second on."
    : "No data yet: the node looks at itself every ten seconds, and lines are drawn from the second look on.";
  at("plots").hidden = !any;
}

function show(status, past) {
  last = new Date();
  document.body.classList.remove("unknown");
  head(status.node);
  showParts(at("parts"), status);
  if (past.every === (chosen === "days" ? 300 : 10)) history(past);
}

function told(error) {
  document.body.classList.toggle("stale", error !== null);
  at("silent").hidden = error === null;
  if (error === null) return;
  if (error instanceof Refused) {
    sign("bad", "no token");
    at("silent").replaceChildren("This page shows nothing without its token. ", el("code", {}, "peel status --page"), " prints the address that has it; open that.");
    return;
  }
  sign("bad", "does not answer");
  document.title = "Peel: does not answer";
  at("silent").replaceChildren("The node does not answer: " + error.message + "." + (last ? " What is below is of " + last.toLocaleTimeString("en-GB") + "." : "") + " The page goes on asking.");
}

const paths = ["/status", "/history?span=hour"];
for (const button of document.querySelectorAll("[data-span]")) {
  button.addEventListener("click", async () => {
    chosen = button.dataset.span;
    paths[1] = "/history?span=" + chosen;
    for (const b of document.querySelectorAll("[data-span]")) b.setAttribute("aria-pressed", String(b === button));
    try {
      history(await ask(paths[1]));
    } catch (e) {
      told(e);
    }
  });
}
watch(paths, every, show, told);
