// Questions as people write them: `client → server:80`, `client -> svc/web:80/udp`, `client 10.0.0.9:53`.

const PROTOCOLS = ["tcp", "udp", "sctp", "icmp"];

/** Returns the body of `POST /v1/explain`, or throws what is wrong with the question. */
export function parse(text) {
  const ends = text.trim().split(/\s*(?:→|->|=>)\s*|\s+/).filter(Boolean);
  if (ends.length !== 2) throw new Error("Write who and with whom: client → server:80");
  const [from, last] = ends;
  const found = last.match(/^(.*?)(?::(\d+))?(?:\/(tcp|udp|sctp|icmp))?$/i);
  let [, to, port, protocol] = found;
  const isBareV6 = (to.match(/:/g) ?? []).length > 1 && !to.startsWith("[");
  if (isBareV6 && port !== undefined) throw new Error(`Put brackets around an IPv6 address with a port: [${to}]:${port}`);
  to = to.replace(/^\[(.*)\]$/, "$1");
  protocol = protocol?.toLowerCase() ?? (port === undefined ? "icmp" : "tcp");
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535)) throw new Error(`${port} is not a port`);
  const hasPort = protocol !== "icmp";
  if (hasPort && port === undefined) throw new Error(`${protocol.toUpperCase()} needs a port: ${to}:80/${protocol}`);
  return { from, to, protocol, ...(hasPort ? { port: Number(port) } : {}) };
}

/** The body for a flow that was seen; nothing if an end is not known or the protocol has no name. */
export function ofFlow(flow) {
  const protocol = flow.protocol.replace(/^ICMPv6$/, "ICMP").toLowerCase();
  if (!flow.source || !flow.destination || !PROTOCOLS.includes(protocol)) return undefined;
  const name = (end) => end.pod ?? end.address;
  const port = protocol === "icmp" ? {} : { port: flow.port };
  return { from: name(flow.source), to: name(flow.destination), protocol, ...port };
}

export function asText({ from, to, protocol, port }) {
  return `${from} → ${to}${port === undefined ? "" : `:${port}`} ${protocol.toUpperCase()}`;
}
