// The few things that every part of the page does with the document.

export const $ = (selector, within = document) => within.querySelector(selector);

/** An element with properties (class, data-*, on…, and others as attributes) and children; text is always text, never markup. */
export function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "pod") node.style.setProperty("--pod", podColor(value));
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Writes a text only where it changed, so that nothing flickers and screen readers stay quiet. */
export function say(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

/** The colour of a pod, by the number at the end of its name. */
export const podColor = (id) => `var(--pod-${((Number(/\d+$/.exec(id)?.[0] ?? 1) - 1) % 6) + 1})`;

/** Replaces the options of a select and keeps what was chosen. */
export function choices(select, options) {
  const wanted = JSON.stringify(options);
  if (select.dataset.options === wanted) return;
  const chosen = select.value;
  select.dataset.options = wanted;
  select.replaceChildren(...options.map(([value, label]) => el("option", { value }, label)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}
