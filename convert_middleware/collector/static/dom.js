// Building blocks: every text from outside enters the page as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text nodes. */
export function element(tag, attributes = {}, ...children) {
  return dressed(document.createElement(tag), attributes, children);
}

export function drawing(tag, attributes = {}, ...children) {
  return dressed(document.createElementNS(SVG, tag), attributes, children);
}

function dressed(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Sets a text only where it differs, so that selections and assistive technology are left in peace. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const WHOLE = new Intl.NumberFormat("en");

export const whole = (number) => WHOLE.format(number);

/** "12345.60" → "12,345.60": exact, because the amount never becomes a number. */
export function money(text) {
  const [units, cents] = text.split(".");
  return `${WHOLE.format(BigInt(units))}.${cents}`;
}

export function percent(share, digits) {
  return `${(share * 100).toFixed(digits)} %`;
}

/** As many digits as the size of the number deserves. */
export const digitsFor = (share) => (share > 0 && share < 0.1 ? 2 : 1);

export function range([low, high]) {
  const digits = digitsFor(high);
  return `${(low * 100).toFixed(digits)}–${(high * 100).toFixed(digits)} %`;
}

export const sortedIds = (object) =>
  Object.keys(object).sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));

export async function request(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error.message);
  return content;
}
