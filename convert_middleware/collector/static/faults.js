// The panel that makes the collector misbehave.

import { byId, request, say } from "./dom.js";

const form = byId("fault-form");
const panel = byId("faults");
const opener = byId("misbehave");
const WHOLE = ["status", "delay_ms", "count", "seed"];

opener.addEventListener("click", () => {
  panel.hidden = !panel.hidden;
  opener.setAttribute("aria-expanded", String(!panel.hidden));
  if (!panel.hidden) panel.querySelector("button").focus();
});

/** A number where it is one; else the text itself, which the collector then refuses by name. */
const number = (text) => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

function chosen() {
  const fault = { mode: form.elements.mode.value };
  for (const name of WHOLE) {
    const text = form.elements[name].value.trim();
    if (text) fault[name] = number(text);
  }
  const share = form.elements.probability.value.trim().replace(",", ".");
  if (share) fault.probability = typeof number(share) === "number" ? number(share) / 100 : share;
  const retry = form.elements.retry_after.value.trim();
  if (retry) fault.retry_after = retry;
  if (form.elements.record.value) fault.record = form.elements.record.value === "true";
  return fault;
}

function fill(fault) {
  form.reset();
  for (const [name, value] of Object.entries(fault)) {
    form.elements[name].value = name === "probability" ? value * 100 : value;
  }
}

async function set(fault) {
  say(byId("fault-error"), "");
  try {
    showFaults(await request("PUT", "api/faults", fault));
  } catch (error) {
    say(byId("fault-error"), error.message);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  set(chosen());
});
byId("normal").addEventListener("click", () => {
  form.reset();
  set({});
});
for (const button of panel.querySelectorAll("[data-preset]")) {
  button.addEventListener("click", () => {
    const fault = JSON.parse(button.dataset.preset);
    fill(fault);
    set(fault);
  });
}

export function showFaults(fault) {
  opener.classList.toggle("on", fault.active);
  say(opener, fault.active ? "Misbehaving…" : "Misbehave…");
  say(byId("fault-state"), fault.active ? inWords(fault) : `Everything is answered normally.${count(fault.affected)}`);
}

const count = (affected) => (affected ? ` ${affected} request${affected === 1 ? " was" : "s were"} affected before.` : "");

function inWords(fault) {
  const words = {
    answer: fault.status === null ? "Answers" : `Answers ${fault.status}`,
    reset: "Resets the connection", refuse: "Refuses", stall: "Never answers", garbage: "Answers garbage",
    bot: "Answers “BOT”", captive: "Plays a captive portal",
  }[fault.mode];
  return [
    words,
    fault.retry_after === null ? "" : `Retry-After ${fault.retry_after}`,
    fault.delay_ms ? `after ${fault.delay_ms} ms` : "",
    fault.probability < 1 ? `in ${+(fault.probability * 100).toFixed(2)} % of cases` : "",
    fault.remaining === null ? "" : fault.remaining === 1 ? "for the next request" : `for the next ${fault.remaining} requests`,
    fault.record ? "and keeps the request" : "and keeps nothing",
  ].filter(Boolean).join(", ") + `. ${fault.affected} affected so far.`;
}
