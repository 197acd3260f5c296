// Asks the service. What it refuses becomes an error with its own words.

export class Refused extends Error {
  constructor(status, type, message) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

const GIVE_UP_MS = 30000;

const ask = async (method, path, body) => {
  let reply;
  try {
    reply = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(GIVE_UP_MS),
      cache: "no-store",
    });
  } catch {
    throw new Refused(0, "Unreachable", "The service does not answer.");
  }
  let found;
  try {
    found = await reply.json();
  } catch {
    throw new Refused(reply.status, "Unreachable", "The answer of the service was cut short.");
  }
  if (!reply.ok) {
    throw new Refused(reply.status, found.error.class, found.error.message);
  }
  return found;
};

export const get = (path, parameters = {}) => {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  const query = new URLSearchParams(given).toString();
  return ask("GET", query ? `${path}?${query}` : path);
};
export const post = (path, body) => ask("POST", path, body);
export const remove = (path) => ask("DELETE", path);
