// The totals and one card per experiment, brought up to date in place.

import { drawPace, drawRates } from "./chart.js";
import { byId, digitsFor, element, money, percent, range, say, sortedIds, whole } from "./dom.js";

const TOTALS = [
  ["requests", "Hits", whole],
  ["visitors", "First exposures", whole],
  ["conversions", "Conversions", whole],
  ["orders", "Orders", whole],
  ["revenue", "Revenue", money],
  ["duplicate_transactions", "Repeated orders", whole, "warn"],
  ["malformed", "Malformed", whole, "warn"],
  ["bots", "Refused as bots", whole, "warn"],
];

const cards = new Map();
const figures = new Map();
let pace = { until: 0, counts: [], at: 0 };

for (const [key, label] of TOTALS) {
  const value = element("dd", {}, "–");
  figures.set(key, value);
  byId("totals").append(element("div", {}, element("dt", {}, label), value));
}

export function showSummary(summary) {
  for (const [key, , format, tone] of TOTALS) {
    const value = summary.totals[key];
    say(figures.get(key), format(value));
    figures.get(key).parentElement.classList.toggle("warn", tone === "warn" && value > 0);
  }
  pace = { ...summary.pace, at: performance.now() };
  showPace();
  byId("empty").hidden = summary.totals.requests !== 0;
  const experiments = sortedIds(summary.experiments);
  for (const [id, card] of cards) {
    if (!(id in summary.experiments)) {
      card.node.remove();
      cards.delete(id);
    }
  }
  for (const id of experiments) {
    if (!cards.has(id)) cards.set(id, new Card(id));
    const card = cards.get(id);
    if (!card.node.isConnected) placeInOrder(card.node, id);
    card.show(summary.experiments[id]);
  }
}

function placeInOrder(node, id) {
  const next = [...cards.keys()].filter((other) => BigInt(other) > BigInt(id) && cards.get(other).node.isConnected);
  const before = next.length ? cards.get(sortedIds(Object.fromEntries(next.map((key) => [key, 1])))[0]).node : null;
  byId("experiments").insertBefore(node, before);
}

/** The curve moves on although nothing arrives. */
export function showPace() {
  const passed = Math.min(pace.counts.length, Math.floor((performance.now() - pace.at) / 1000));
  const counts = [...pace.counts.slice(passed), ...Array(passed).fill(0)];
  if (!counts.length) return;
  drawPace(byId("pace"), counts);
  say(byId("pace-now"), whole(counts[counts.length - 2])); // the last whole second
}

const named = (name, id) => (name === null ? id : name);

class Card {
  constructor(id) {
    this.id = id;
    this.title = element("h2", { id: `experiment-${id}` });
    this.sub = element("p", { class: "muted" });
    this.select = element("select", {});
    this.chart = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.chart.setAttribute("role", "img");
    this.chartBox = element("div", { class: "chart" }, this.chart);
    this.figure = element("figure", { class: "rates" },
      element("figcaption", {},
        element("label", {}, "Conversion rate of ", this.select),
        this.legend = element("span", { class: "muted" })),
      this.chartBox);
    this.head = element("thead", { role: "rowgroup" });
    this.body = element("tbody", { role: "rowgroup" });
    this.table = element("table", { role: "table", "aria-labelledby": `experiment-${id}` }, this.head, this.body);
    this.node = element("article", { class: "card experiment", "aria-labelledby": `experiment-${id}` },
      element("div", { class: "card-head" }, element("div", {}, this.title, this.sub)),
      element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Numbers per variation" }, this.table),
      this.figure);
    this.shape = "";
    this.select.addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.chartBox);
  }

  show(data) {
    this.data = data;
    this.variations = sortedIds(data.variations);
    this.goals = sortedIds(data.variations[this.variations[0]].goals);
    say(this.title, data.name ?? `Experiment ${this.id}`);
    say(this.sub, `${data.name === null ? "" : `Experiment ${this.id} · `}${whole(data.visitors)} visitor${data.visitors === 1 ? "" : "s"} · ${this.variations.length} variation${this.variations.length === 1 ? "" : "s"}`);
    say(this.legend, `line: 95 % interval${this.variations.length > 1 ? " · shaded: the first variation’s" : ""}`);
    this.fill();
    this.offerGoals();
    this.draw();
  }

  fill() {
    const goals = this.data.variations[this.variations[0]].goals;
    const columns = [
      "Variation", "Visitors",
      ...this.goals.map((id) => (goals[id].name === null ? `Goal ${id}` : goals[id].name)),
      "Orders", "Revenue", "Per visitor",
    ];
    const shape = JSON.stringify([columns, this.variations, this.goals]);
    if (shape !== this.shape) {
      this.shape = shape;
      this.build(columns);
    }
    this.variations.forEach((id, row) => {
      const numbers = this.data.variations[id];
      const cells = this.cells[row];
      say(cells[0].main, named(numbers.name, `Variation ${id}`));
      say(cells[0].small, numbers.name === null ? "" : id);
      say(cells[1].main, whole(numbers.visitors));
      this.goals.forEach((goal, index) => {
        const { conversions, rate, interval } = numbers.goals[goal];
        const cell = cells[2 + index];
        say(cell.main, whole(conversions));
        say(cell.rate, rate === null ? "" : percent(rate, digitsFor(rate)));
        say(cell.small, interval ? range(interval) : "");
      });
      const [orders, revenue, per] = cells.slice(-3);
      say(orders.main, whole(numbers.orders));
      say(revenue.main, money(numbers.revenue));
      say(per.main, numbers.revenue_per_visitor === null ? "–" : money(numbers.revenue_per_visitor));
    });
  }

  build(columns) {
    this.head.replaceChildren(element("tr", { role: "row" },
      ...columns.map((text) => element("th", { scope: "col", role: "columnheader" }, text))));
    this.cells = [];
    this.body.replaceChildren(...this.variations.map((_, index) => {
      const row = columns.map((column, place) => {
        const main = element("span", { class: "main" });
        const rate = element("b", { class: "rate" });
        const small = element("small");
        const first = place === 0;
        const text = element("span", { class: "stack" }, element("span", { class: "line" }, main, rate), small);
        const cell = element(first ? "th" : "td",
          first ? { scope: "row", role: "rowheader" } : { role: "cell", "data-label": column },
          ...(first ? [element("i", { class: `swatch tone-${index % 6}`, "aria-hidden": "true" })] : []), text);
        return { cell, main, rate, small };
      });
      this.cells.push(row);
      return element("tr", { role: "row" }, ...row.map(({ cell }) => cell));
    }));
  }

  offerGoals() {
    const goals = this.data.variations[this.variations[0]].goals;
    const labels = this.goals.map((id) => (goals[id].name === null ? `goal ${id}` : `${goals[id].name} (${id})`));
    const offered = [...this.select.options].map((option) => option.textContent);
    if (JSON.stringify(offered) !== JSON.stringify(labels)) {
      const chosen = this.chosen ? this.select.value : this.busiest(goals);
      this.select.replaceChildren(...this.goals.map((id, index) => element("option", { value: id }, labels[index])));
      this.select.value = this.goals.includes(chosen) ? chosen : this.goals[0];
      this.select.onchange = () => { this.chosen = true; };
    }
    this.figure.hidden = this.goals.length === 0 || this.data.visitors === 0;
  }

  /** Until somebody chooses: the goal with revenue, else the one with most conversions. */
  busiest() {
    const weight = (goal) => this.variations.reduce((sum, id) => {
      const { orders, conversions } = this.data.variations[id].goals[goal];
      return sum + (conversions ? conversions + orders * 1e6 : 0);
    }, 0);
    return [...this.goals].sort((a, b) => weight(b) - weight(a))[0];
  }

  draw() {
    const width = this.chartBox.clientWidth;
    if (!this.data || !width || !this.goals.length) return;
    drawRates(this.chart, this.variations.map((id) => {
      const { name, goals } = this.data.variations[id];
      return { label: named(name, `Variation ${id}`), ...goals[this.select.value] };
    }), width);
  }
}
