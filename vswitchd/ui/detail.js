// What is known of one pair, and what the policies say of a connection.

import { html } from "./dom.js";
import { SAID, count, portOf } from "./model.js";

const timeOf = (time) => new Date(time).toISOString().replace("T", " ").slice(0, 19);

function list(entries) {
  const filled = entries.filter(([, value]) => value !== undefined && value !== "");
  return html("dl", {}, ...filled.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)]));
}

/** A rule that came close, and what would have helped. */
function nearestMiss(miss) {
  if (!miss) return [];
  return [
    list([["nearest rule", `${miss.rule.policy} ${miss.rule.part}`], ["lacks", miss.reason]]),
    miss.advice ? html("p", { class: "cure" }, miss.advice.text) : undefined,
  ];
}

function flowPart(flow, explain) {
  const record = flow.record;
  const about = record
    ? [
      ["reason", record.explanation?.reason ?? record.reason],
      [record.policies.length > 1 ? "policies" : "policy", record.policies.join(", ")],
      ["rule", record.rule && `${record.rule.table}: ${record.rule.name} ${record.rule.part}`],
    ]
    : [["now", count(flow.connections, "connection")], ["bytes", flow.bytes.toLocaleString("en")]];
  return [
    html("h3", {}, portOf(flow), " ", html("span", { class: `verdict ${flow.verdict}` }, record?.verdict === "cut" ? "cut" : SAID[flow.verdict])),
    list([
      ["Service", flow.service],
      ...about,
      [record ? "counted" : "packets", record && flow.packets === 0 ? count(flow.connections, "connection") : count(flow.packets, "packet")],
      ["since", timeOf(flow.first)],
      ["last", `${timeOf(flow.last)} UTC`],
    ]),
    ...nearestMiss(record?.explanation?.nearest_miss),
    explain && html("button", { type: "button", onclick: explain }, "What do the policies say now?"),
  ];
}

/** Shows the flows of a pair. `explain(flow)` asks what would happen now, where that can be asked. */
export function showPair(element, pair, explain) {
  const newestFirst = [...pair.flows].sort((a, b) => b.last - a.last);
  element.replaceChildren(
    html("h2", {}, `${pair.from} → ${pair.to}`),
    ...newestFirst.slice(0, 50).flatMap((flow) => flowPart(flow, explain(flow))),
    newestFirst.length > 50 ? html("p", { class: "soft" }, `and ${newestFirst.length - 50} kinds more: vsctl flows`) : "",
  );
}

function direction(name, of) {
  return [
    html("h3", {}, name, " ", html("span", { class: `verdict ${of.allowed ? "allowed" : "denied"}` }, of.allowed ? "allowed" : "denied")),
    html("p", {}, of.reason),
    list([
      ["isolated by", of.isolated_by.join(", ")],
      ["allowed by", of.allowed_by && `${of.allowed_by.policy} ${of.allowed_by.part}`],
      ["denied by", of.denied_by && `${of.denied_by.policy} ${of.denied_by.part}`],
    ]),
    ...(of.allowed ? [] : nearestMiss(of.near_misses[0])),
  ];
}

/** Shows what policies say of a connection. */
export function showExplanation(element, asked, answer) {
  const verdict = answer.allowed ? "allowed" : "denied";
  element.replaceChildren(
    html("h2", {}, asked),
    html("p", { class: `verdict ${verdict}`, id: "answer" }, verdict),
    html("p", {}, answer.summary),
    answer.note ? html("p", { class: "soft" }, answer.note) : "",
    ...direction("Sender's policies", answer.egress),
    ...direction("Receiver's policies", answer.ingress),
  );
}

export function showProblem(element, asked, problem) {
  element.replaceChildren(html("h2", {}, asked), html("p", { class: "denied" }, problem));
}
