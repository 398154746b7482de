// What is known of the traffic: by pair of ends, then by protocol, port and verdict.

/** An end as people name it: the pod, the node, else its address. */
export function nameOf(end) {
  if (!end) return "various";
  return end.pod ?? (end.is_node ? "node" : end.address);
}

/** Verdicts, the worst first: what a pair is shown as. A connection that was cut was denied. */
export const VERDICTS = ["denied", "would_deny", "allowed"];

const shown = (verdict) => (verdict === "cut" ? "denied" : verdict);

/** Most pairs and ends that are drawn: what is beyond is said. */
const MOST_PAIRS = 600;
const MOST_ENDS = 150;

export class Model {
  constructor() {
    this.flows = new Map();
    this.pods = [];
  }

  /** Replaces what is known of denials by what the node has kept. */
  setRecords(records) {
    for (const [key, flow] of this.flows) if (flow.record) this.flows.delete(key);
    records.forEach((record) => this.addRecord(record));
  }

  /** Adds what was counted in a second. What came between asking for all and hearing of it may be
      counted twice, until all is asked for again. */
  addRecord(record) {
    const key = [record.verdict, record.reason, nameOf(record.source), nameOf(record.destination),
      record.service, record.protocol, record.port, ...record.policies].join("|");
    const before = this.flows.get(key);
    this.flows.set(key, {
      key,
      record: { ...record, explanation: record.explanation ?? before?.record.explanation },
      source: record.source, destination: record.destination,
      service: record.service, protocol: record.protocol ?? "", port: record.port,
      verdict: shown(record.verdict),
      first: Math.min(before?.first ?? Infinity, Date.parse(record.first)),
      last: Math.max(before?.last ?? 0, Date.parse(record.last)),
      packets: (before?.packets ?? 0) + record.packets,
      connections: (before?.connections ?? 0) + record.connections,
    });
  }

  /** Takes in the connections that there are now. */
  setTraffic(edges, now) {
    for (const edge of edges) {
      const key = ["allowed", nameOf(edge.source), nameOf(edge.destination), edge.service, edge.protocol, edge.port].join("|");
      const last = now - 1000 * edge.idle_seconds;
      const first = Math.min(this.flows.get(key)?.first ?? Infinity, now - 1000 * edge.age_seconds);
      this.flows.set(key, { ...edge, key, last, first, verdict: "allowed" });
    }
  }

  /** Forgets what is older than the time that is shown. */
  forget(before) {
    for (const [key, flow] of this.flows) if (flow.last < before) this.flows.delete(key);
  }

  namespaces() {
    const of = (name) => (name.includes("/") ? [name.split("/")[0]] : []);
    const names = [...this.flows.values()].flatMap((flow) => [nameOf(flow.source), nameOf(flow.destination)]);
    return [...new Set([...this.pods, ...names].flatMap(of))].sort();
  }

  /** The ends and pairs that are drawn: those that were seen last. */
  picture(namespace) {
    const isMeant = (name) => !namespace || name.startsWith(`${namespace}/`);
    const pairs = new Map();
    const newestFirst = [...this.flows.values()].sort((a, b) => b.last - a.last);
    const names = new Set();
    let left = 0;
    for (const flow of newestFirst) {
      const [from, to] = [nameOf(flow.source), nameOf(flow.destination)];
      if (!isMeant(from) && !isMeant(to)) continue;
      const key = `${from}|${to}`;
      const fits = [from, to].filter((name) => !names.has(name)).length + names.size <= MOST_ENDS;
      if (!pairs.has(key) && (!fits || pairs.size >= MOST_PAIRS)) { left += 1; continue; }
      names.add(from).add(to);
      if (!pairs.has(key)) pairs.set(key, { key, from, to, flows: [] });
      pairs.get(key).flows.push(flow);
    }
    for (const pod of this.pods) if (isMeant(pod) && names.size < MOST_ENDS) names.add(pod);
    const edges = [...pairs.values()].flatMap((pair) => VERDICTS
      .map((verdict) => ({ ...pair, verdict, key: `${pair.key}|${verdict}`, flows: pair.flows.filter((flow) => flow.verdict === verdict) }))
      .filter((edge) => edge.flows.length > 0));
    return { names: [...names].sort(), pairs: [...pairs.values()], edges, left };
  }
}

/** The verdict of what was seen last between two ends. */
export function latest(pair) {
  return pair.flows.reduce((a, b) => (b.last > a.last ? b : a)).verdict;
}

export const SAID = { allowed: "allowed", denied: "denied", would_deny: "would be denied" };

/** A number of packets or connections with its noun. */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

export function portOf(flow) {
  if (flow.port === undefined || flow.port === null) return flow.protocol;
  return flow.protocol.startsWith("ICMP") ? `${flow.protocol} type ${flow.port}` : `${flow.protocol} ${flow.port}`;
}
