// The daemon's API: requests that bear the token of the address, and what happens as it happens.

const KEY = "vswitch-token";

/** The address wants a token, or another one. */
export class Unauthorized extends Error {}

/** Takes a token out of the address (`#token=…`), where it would stay in the history. */
export function tokenFromAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    setToken(given);
    history.replaceState(null, "", location.pathname);
  }
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(KEY);
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.status === 401) throw new Unauthorized("a token is needed");
  return answer;
}

async function body(answer) {
  if (answer.ok) return answer.json();
  const said = await answer.json().catch(() => null);
  throw new Error(said?.error?.message ?? `HTTP status ${answer.status}`);
}

export async function get(path) {
  return body(await request(path));
}

export async function post(path, value) {
  const headers = { "Content-Type": "application/json" };
  return body(await request(path, { method: "POST", headers, body: JSON.stringify(value) }));
}

/** Hands on server-sent events until the daemon ends them. Not `EventSource`: that bears no token. */
export async function events(path, take) {
  const answer = await request(path, { headers: { Accept: "text/event-stream" } });
  if (!answer.ok) await body(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const field = (name) => part.match(new RegExp(`^${name}: (.*)$`, "m"))?.[1];
      if (field("event")) take(field("event"), JSON.parse(field("data") ?? "null"));
    }
  }
}
