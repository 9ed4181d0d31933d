// Two drawings: conversion rates with their intervals, and the pace of requests.

import { digitsFor, drawing, percent, range } from "./dom.js";

const ROW = 44;
const TOP = 6;
const AXIS = 26;
const SIDE = 18; // room for half a tick label

/** A round step that divides `span` into about `parts`. */
function roundStep(span, parts) {
  const raw = span / parts;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= raw);
}

/**
 * One row per variation: a dot for the rate, a whisker for its 95 % interval. The shaded band is the
 * first variation's interval, to hold the others against.
 * rows: [{label, rate, interval, conversions, visitors}]
 */
export function drawRates(svg, rows, width) {
  const measured = rows.filter((row) => row.interval);
  const height = TOP + rows.length * ROW + AXIS;
  const most = Math.max(...measured.map((row) => row.interval[1]), 0.01);
  const step = roundStep(most, Math.max(3, Math.min(6, width / 110)));
  const end = Math.min(1, Math.ceil(most / step - 1e-9) * step) || step;
  const x = (share) => SIDE + (share / end) * (width - 2 * SIDE);
  const floor = TOP + rows.length * ROW;
  const parts = [];

  for (let tick = 0; tick <= end + step / 1000; tick += step) {
    const last = tick + step > end + step / 1000;
    parts.push(
      ...rows.map((_, index) => {
        const y = whiskerOf(index);
        return drawing("line", { class: "grid", x1: x(tick), x2: x(tick), y1: y - 9, y2: y + 11 });
      }),
      drawing("text",
        { class: "tick", x: last ? width - 4 : x(tick), y: floor + 18, "text-anchor": last ? "end" : "middle" },
        percent(tick, step < 0.01 ? (step < 0.001 ? 2 : 1) : 0)),
    );
  }
  const base = rows[0]?.interval;
  if (base && rows.length > 1) {
    parts.unshift(drawing("rect", {
      class: "band", x: x(base[0]), y: TOP, width: Math.max(1, x(base[1]) - x(base[0])), height: floor - TOP,
    }));
  }
  rows.forEach((row, index) => parts.push(...rateRow(row, index, x, width)));
  svg.replaceChildren(...parts);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.setAttribute("aria-label", rows.map(inWords).join("; "));
}

/** The height of a whisker; the label stands above it, where no line of the grid runs. */
const whiskerOf = (index) => TOP + index * ROW + 29;

function rateRow(row, index, x, width) {
  const y = whiskerOf(index);
  const name = drawing("text", { class: "name", x: SIDE, y: y - 13 }, row.label);
  if (!row.interval) {
    return [name, drawing("text", { class: "tick", x: SIDE, y: y + 4 }, "no visitors to compare with")];
  }
  const tone = `tone-${index % 6}`;
  const [low, high] = row.interval.map(x);
  const middle = x(row.rate);
  const value = `${percent(row.rate, digitsFor(row.rate))}`;
  return [
    name,
    drawing("g", { class: tone },
      drawing("title", {}, inWords(row)),
      drawing("line", { class: "whisker", x1: low, x2: high, y1: y, y2: y }),
      drawing("line", { class: "whisker", x1: low, x2: low, y1: y - 5, y2: y + 5 }),
      drawing("line", { class: "whisker", x1: high, x2: high, y1: y - 5, y2: y + 5 }),
      drawing("circle", { class: "dot", cx: middle, cy: y, r: 6 })),
    drawing("text", { class: "value", x: width - SIDE, y: y - 13, "text-anchor": "end" }, value),
  ];
}

function inWords(row) {
  const rate = row.rate === null ? "no rate" : percent(row.rate, digitsFor(row.rate));
  return `${row.label}: ${rate}${row.interval ? `, interval ${range(row.interval)}` : ""}`;
}

export function drawPace(svg, counts) {
  const most = Math.max(...counts, 1);
  const last = counts.length - 1;
  const points = counts.map((count, index) =>
    `${((index / last) * 180).toFixed(2)},${(38 - (count / most) * 35).toFixed(2)}`);
  svg.replaceChildren(
    drawing("polygon", { class: "area", points: `0,40 0,38 ${points.join(" ")} 180,38 180,40` }),
    drawing("polyline", { class: "curve", points: points.join(" ") }),
  );
}
