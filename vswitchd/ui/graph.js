// Pods as a graph: an arrow for each pair of ends and verdict.
/* global d3 */

import { keyed, svg } from "./dom.js";
import { SAID } from "./model.js";

const RADIUS = 9;
/** Steps of the layout: it is worked out at once, nothing moves by itself. */
const STEPS = 250;

export class Graph {
  constructor(element, choose) {
    this.edges = svg("g");
    this.ends = svg("g");
    element.append(this.edges, this.ends);
    this.element = element;
    this.choose = choose;
    this.places = new Map();
    this.laidOut = "";
  }

  draw({ names, edges }, chosen) {
    this.layOut(names, edges);
    keyed(this.edges, edges, (edge) => this.newEdge(edge), (element, edge) => this.placeEdge(element, edge, chosen));
    keyed(this.ends, names.map((key) => ({ key })), newEnd, (element, { key }) => {
      const { x, y } = this.places.get(key);
      element.setAttribute("transform", `translate(${x} ${y})`);
    });
  }

  layOut(names, edges) {
    const form = JSON.stringify([names, edges.map((edge) => `${edge.from}|${edge.to}`)]);
    if (form === this.laidOut) return;
    this.laidOut = form;
    const nodes = names.map((id) => ({ id, ...this.places.get(id) }));
    const links = edges.map((edge) => ({ source: edge.from, target: edge.to }));
    d3.forceSimulation(nodes)
      .force("links", d3.forceLink(links).id((node) => node.id).distance(150))
      .force("apart", d3.forceManyBody().strength(-420).distanceMax(600))
      .force("collide", d3.forceCollide(34))
      .force("x", d3.forceX(0).strength(0.05))
      .force("y", d3.forceY(0).strength(0.09))
      .stop()
      .tick(STEPS);
    this.places = new Map(nodes.map(({ id, x, y }) => [id, { x: Math.round(x), y: Math.round(y) }]));
    this.fit(nodes);
  }

  fit(nodes) {
    const all = (of) => [Math.min(...nodes.map(of)), Math.max(...nodes.map(of))];
    const [left, right] = nodes.length ? all((node) => node.x) : [0, 0];
    const [top, bottom] = nodes.length ? all((node) => node.y) : [0, 0];
    // Not closer than a few pods are at their natural size.
    const width = Math.max(right - left + 200, 520);
    const height = Math.max(bottom - top + 100, 320);
    const [x, y] = [(left + right - width) / 2, (top + bottom - height) / 2];
    this.element.setAttribute("viewBox", [x, y, width, height].map(Math.round).join(" "));
  }

  newEdge(edge) {
    const choose = (event) => this.choose(event.currentTarget.item);
    const press = (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(event);
    };
    return svg("g", { tabindex: 0, role: "button", onclick: choose, onkeydown: press },
      svg("path", { class: "hit" }), svg("path", { class: "seen" }), svg("path", { class: "head" }));
  }

  placeEdge(element, edge, chosen) {
    const isChosen = chosen === edge.key;
    element.setAttribute("class", `edge ${edge.verdict}${isChosen ? " chosen" : ""}`);
    element.setAttribute("aria-label", `${edge.from} to ${edge.to}: ${SAID[edge.verdict]}, ${edge.flows.length} kinds of connections`);
    const [from, to] = [this.places.get(edge.from), this.places.get(edge.to)];
    const bow = { denied: 26, would_deny: 46, allowed: 10 }[edge.verdict];
    const { line, head } = arrow(from, to, bow);
    const [hit, seen, tip] = element.children;
    hit.setAttribute("d", line);
    seen.setAttribute("d", line);
    tip.setAttribute("d", head);
  }
}

function newEnd({ key }) {
  const kind = key.includes("/") ? "pod" : "outside";
  return svg("g", { class: `end ${kind}` }, svg("circle", { r: RADIUS }), svg("text", { y: -RADIUS - 5 }, key));
}

/** A bowed line that ends in front of its receiver, and the tip of the arrow. */
function arrow(from, to, bow) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = Math.hypot(dx, dy);
  // To itself.
  if (length < 1) {
    const { x, y } = from;
    return { line: `M${x - 6} ${y + 7}C${x - 40} ${y + 50} ${x + 40} ${y + 50} ${x + 7} ${y + 12}`, head: "" };
  }
  const middle = { x: (from.x + to.x) / 2 - (dy / length) * bow, y: (from.y + to.y) / 2 + (dx / length) * bow };
  const last = Math.hypot(to.x - middle.x, to.y - middle.y);
  const [ux, uy] = [(to.x - middle.x) / last, (to.y - middle.y) / last];
  const at = (back, side) => `${(to.x - ux * back - uy * side).toFixed(1)} ${(to.y - uy * back + ux * side).toFixed(1)}`;
  const tip = RADIUS + 2;
  return {
    line: `M${from.x} ${from.y}Q${middle.x.toFixed(1)} ${middle.y.toFixed(1)} ${at(tip + 8, 0)}`,
    head: `M${at(tip, 0)}L${at(tip + 11, 6)}L${at(tip + 11, -6)}Z`,
  };
}
