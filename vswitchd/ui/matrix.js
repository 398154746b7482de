// The same as a table: who began in rows, with whom in columns.

import { html } from "./dom.js";
import { SAID, count, latest } from "./model.js";

const SIGN = { allowed: "✓", denied: "✗", would_deny: "!" };

export class Matrix {
  constructor(element, choose) {
    this.element = element;
    this.choose = choose;
    this.drawn = "";
  }

  draw({ pairs }) {
    const from = [...new Set(pairs.map((pair) => pair.from))].sort();
    const to = [...new Set(pairs.map((pair) => pair.to))].sort();
    const cells = new Map(pairs.map((pair) => [pair.key, pair]));
    const form = JSON.stringify(pairs.map((pair) => [pair.key, latest(pair), pair.flows.length]).sort());
    if (form === this.drawn) {
      for (const button of this.element.querySelectorAll("button")) button.item = cells.get(button.dataset.key);
      return;
    }
    this.drawn = form;
    const focused = document.activeElement?.dataset?.key;
    const head = html("tr", {}, html("th", { scope: "col" }, "from ↓ to →"), ...to.map((name) => html("th", { scope: "col" }, name)));
    const rows = from.map((sender) => html("tr", {}, html("th", { scope: "row" }, sender),
      ...to.map((receiver) => html("td", {}, this.cell(cells.get(`${sender}|${receiver}`))))));
    this.element.replaceChildren(html("table", {}, html("thead", {}, head), html("tbody", {}, ...rows)));
    if (focused) this.element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  cell(pair) {
    if (!pair) return undefined;
    const verdict = latest(pair);
    const label = `${pair.from} to ${pair.to}: ${SAID[verdict]}`;
    const button = html("button", {
      type: "button", class: verdict, "data-key": pair.key, "aria-label": label, title: label,
      onclick: (event) => this.choose(event.currentTarget.item),
    }, `${SIGN[verdict]} ${count(pair.flows.length, "kind")}`);
    button.item = pair;
    return button;
  }
}
