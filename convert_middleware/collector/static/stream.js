// The stream of hits in words: batches, never more than 200 lines, nothing rebuilt that stays.

import { byId, element, say, whole } from "./dom.js";

const MOST = 200;
const EVERY = 200; // ms between two changes of the list
const list = byId("stream");
const pause = byId("pause");
const problems = byId("problems");
const silence = byId("silence");
let waiting = [];
let paused = false;
let timer = 0;
let first = true;

const TIME = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
});

export function receive(record) {
  waiting.push(record);
  if (waiting.length > MOST) waiting = waiting.slice(-MOST);
  if (paused) say(pause, `Resume (${waiting.length === MOST ? `${MOST}+` : whole(waiting.length)})`);
  else timer ||= setTimeout(show, first ? 0 : EVERY);
}

export function forget() {
  waiting = [];
  first = true;
  list.replaceChildren();
  silence.hidden = true; // until the numbers that follow say that there is nothing
}

/** Says why there is no line; called once it is known that there is none. */
export function hush() {
  say(silence, paused ? "Paused." : problems.checked ? "No problems." : "Nothing yet.");
  silence.hidden = list.children.length > 0 || (waiting.length > 0 && !paused);
}

function show() {
  timer = 0;
  if (paused || !waiting.length) return;
  const batch = waiting.reverse().map(line);
  waiting = [];
  const calm = first || batch.length > 40; // a flood glows no more
  for (const node of batch) node.classList.toggle("new", !calm);
  first = false;
  list.prepend(...batch);
  while (list.children.length > MOST) list.lastElementChild.remove();
  silence.hidden = true;
}

function line(record) {
  const words = element("span", { class: "words" });
  record.parts.forEach((part, index) => {
    if (index) words.append("; ");
    const text = record.outcome === "malformed" ? part.text.replace(/^malformed: /, "") : part.text;
    words.append(element("span", { class: `part ${part.kind}` }, text));
  });
  const time = element("time", { datetime: record.received_at }, TIME.format(new Date(record.received_at)));
  const details = element("details", {},
    element("summary", {}, element("span", { class: "meta" }, time, ...tags(record)), words));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(inside(record));
  });
  const problem = record.outcome !== "hit" || record.duplicate;
  return element("li", { class: problem ? `${record.outcome} problem` : record.outcome }, details);
}

const TAGS = { exposure: "exposure", goals: "conversion", order: "order" };

function tags(record) {
  if (record.outcome !== "hit") return [element("span", { class: "tag warning" }, record.outcome)];
  return record.parts.filter(({ kind }) => kind in TAGS)
    .map(({ kind }) => element("span", { class: `tag ${kind}` }, TAGS[kind]));
}

/** What was on the wire; built when somebody looks. */
function inside(record) {
  const rows = [["URL", `${record.path}?${record.query}`]];
  if (record.error) rows.push(["Parameter", record.error.parameter], ["Text", record.error.text], ["Reason", record.error.reason]);
  if (record.content) {
    rows.push(["Project", `${record.content.project}, customer ${record.content.customer}`]);
    for (const { experiment, variation, goals, new: fresh } of record.content.exposures) {
      rows.push([`Experiment ${experiment}`,
        `variation ${variation}${fresh ? ", new" : ", before"}${goals.length ? `; goals since: ${goals.join(", ")}` : ""}`]);
    }
  }
  rows.push(["Headers", record.headers.map(([name, value]) => `${name}: ${value}`).join("\n")]);
  return element("dl", { class: "wire" },
    ...rows.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))));
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  say(pause, paused ? "Resume" : "Pause");
  hush();
  show();
});

problems.addEventListener("change", () => {
  list.classList.toggle("only-problems", problems.checked);
  hush();
});
