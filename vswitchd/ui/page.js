// The page: fetches what is known, hears what happens, draws.

import { Unauthorized, events, get, post, setToken, tokenFromAddress } from "./api.js";
import { showExplanation, showPair, showProblem } from "./detail.js";
import { html } from "./dom.js";
import { Graph } from "./graph.js";
import { Matrix } from "./matrix.js";
import { Model, count } from "./model.js";
import { asText, ofFlow, parse } from "./search.js";

/** How often connections are counted and the state of the switch is asked for, ms. */
const NOW_EVERY = 2000;
/** How often all records are asked for: between, those that are new are heard. */
const RECORDS_EVERY = 30000;
const RECORDS = 5000;
const at = (id) => document.getElementById(id);

const model = new Model();
let chosen;
const graph = new Graph(at("graph"), (edge) => choose(edge));
const matrix = new Matrix(at("matrix"), (pair) => choose(pair));

function choose(pair) {
  chosen = pair.key;
  show(pair);
  draw();
}

function show(pair) {
  showPair(at("detail"), pair, (flow) => {
    const question = ofFlow(flow);
    return question && (() => ask(question));
  });
}

/** Shows what has changed of the chosen pair, but not under the hands of who is in there. */
function refresh({ edges, pairs }) {
  if (!chosen || at("detail").contains(document.activeElement)) return;
  const pair = [...edges, ...pairs].find(({ key }) => key === chosen);
  if (pair) show(pair);
}

async function ask(question) {
  const asked = asText(question);
  chosen = undefined;
  try {
    showExplanation(at("detail"), asked, await post("/v1/explain", question));
  } catch (error) {
    showProblem(at("detail"), asked, error.message);
    if (error instanceof Unauthorized) login();
  }
  at("detail").focus();
}

function draw() {
  model.forget(Date.now() - 60000 * Number(at("minutes").value));
  const select = at("namespace");
  const namespaces = model.namespaces();
  for (const name of namespaces) {
    if (![...select.options].some((option) => option.value === name)) select.append(html("option", { value: name }, name));
  }
  const picture = model.picture(select.value);
  at("left-out").hidden = picture.left === 0;
  at("left-out").textContent = `${count(picture.left, "kind")} of connections beyond what can be drawn: choose a namespace`;
  const isMatrix = document.querySelector("[name=view]:checked").value === "matrix";
  at("matrix").hidden = !isMatrix;
  at("graph").toggleAttribute("hidden", isMatrix);
  if (isMatrix) matrix.draw(picture);
  else graph.draw(picture, chosen);
  refresh(picture);
}

async function fetchRecords() {
  const { records } = await get(`/v1/flow-records?since=${at("minutes").value}m&limit=${RECORDS}`);
  model.setRecords(records);
}

async function fetchNow() {
  const [status, traffic, attachments] = await Promise.all([get("/v1/status"), get("/v1/traffic"), get("/v1/attachments")]);
  at("node").textContent = status.node;
  document.title = `vswitch ${status.node}`;
  const problems = status.problems ?? [];
  at("state").textContent = problems.length ? problems.join("; ") : status.ready ? "ready" : "not ready";
  at("state").className = problems.length || !status.ready ? "denied" : "soft";
  model.pods = attachments.map((attachment) => attachment.pod);
  model.setTraffic(traffic.edges, Date.now());
}

function login() {
  at("login").hidden = false;
  at("token").focus();
}

const pause = (time) => new Promise((resolve) => setTimeout(resolve, time));

/** Does something again and again; says what fails, and goes on. */
async function again(what, every) {
  for (;;) {
    try {
      await what();
      draw();
    } catch (error) {
      if (error instanceof Unauthorized) return login();
      at("state").textContent = `the daemon does not answer: ${error.message}`;
      at("state").className = "denied";
    }
    await pause(every);
  }
}

async function follow() {
  await events("/v1/flow-records", (name, record) => {
    if (name !== "record") return;
    model.addRecord(record);
    draw();
  });
}

function start() {
  at("login").hidden = true;
  again(fetchNow, NOW_EVERY);
  again(fetchRecords, RECORDS_EVERY);
  again(follow, NOW_EVERY);
}

at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("question").value;
  try {
    ask(parse(text));
  } catch (error) {
    showProblem(at("detail"), text, error.message);
  }
});
at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(at("token").value.trim());
  start();
});
for (const control of document.querySelectorAll("#controls input, #controls select")) {
  control.addEventListener("change", async () => {
    if (control.id === "minutes") await fetchRecords().catch(() => {});
    draw();
  });
}
tokenFromAddress();
start();
