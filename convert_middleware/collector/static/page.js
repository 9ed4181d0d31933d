// The page: one stream of events from the collector, shown by the other modules.

import { byId, request, say, whole } from "./dom.js";
import { showFaults } from "./faults.js";
import { showPace, showSummary } from "./report.js";
import { forget, hush, receive } from "./stream.js";

const state = byId("state");
let requests = 0;
let latest = null;

function connect() {
  const events = new EventSource("api/events?recent=200");
  events.addEventListener("open", () => tell("live", "Live"));
  events.addEventListener("error", () => {
    tell("lost", "Connection lost, trying again…");
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  });
  events.addEventListener("reset", forget);
  for (const name of ["hit", "malformed", "bot"]) {
    events.addEventListener(name, (event) => receive(JSON.parse(event.data)));
  }
  events.addEventListener("summary", (event) => {
    if (latest === null) requestAnimationFrame(refresh);
    latest = event.data; // only the newest one is worth reading
  });
}

function refresh() {
  const summary = JSON.parse(latest);
  latest = null;
  requests = summary.totals.requests + summary.totals.malformed + summary.totals.bots;
  showSummary(summary);
  showFaults(summary.faults);
  hush();
}

function tell(name, text) {
  state.dataset.state = name;
  say(state, text);
}

byId("clear").addEventListener("click", () => {
  say(byId("confirm-text"), `${whole(requests)} request${requests === 1 ? "" : "s"} and all numbers made of them will be gone.`);
  byId("confirm").returnValue = "cancel";
  byId("confirm").showModal();
});
byId("confirm").addEventListener("close", async () => {
  if (byId("confirm").returnValue !== "clear") return;
  try {
    await request("DELETE", "api/hits");
  } catch (error) {
    tell("lost", error.message);
  }
});

const endpoint = new URL("track/", location.href).href;
const example = "c=2&p=1&e=11-12-331.33.34,21-22-33.331.341&ea=1&g=331,33,34,341,35&ga=3&t=35|ab12345|1599.99|10";
say(byId("endpoint"), endpoint);
say(byId("example"), `curl -A 'ConvertAgent/1.0 try' \\\n  '${endpoint}?${example}'`);
byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(byId("example").textContent);
    say(byId("copy"), "Copied");
  } catch {
    getSelection().selectAllChildren(byId("example"));
    say(byId("copy"), "Selected");
  }
  setTimeout(() => say(byId("copy"), "Copy"), 2000);
});

connect();
setInterval(showPace, 1000);
