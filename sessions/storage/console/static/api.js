// Both services over HTTP. The token is in this object and nowhere else: a reload forgets it.

/** An answer that is an error, or none at all (status 0). `detail` is a sentence for the reader. */
export class ApiError extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
    this.detail = detail;
  }
}

export class Api {
  #token;

  /** `processorUrl` is null where browsers do not reach the processor. */
  constructor(token, processorUrl) {
    this.#token = token;
    this.processorUrl = processorUrl;
  }

  /** A JSON answer of session-storage. */
  async json(path, query = {}) {
    return (await this.#ask(target(path, query), this.#token)).json();
  }

  /** A JSON answer and its text as it came, for files. */
  async text(path) {
    return (await this.#ask(path, this.#token)).text();
  }

  /** Metrics of session-storage, which need no token. */
  async metrics() {
    return metricsOf(await (await this.#ask("/metrics", null)).text());
  }

  /** What a service says of its parts, also when it says that it cannot work. */
  async health(base = "") {
    return (await this.#ask(`${base}/health`, null, [503])).json();
  }

  /** The recording of a session, as a stream; with another token if that is the one for replays. */
  async recording(session, token, signal) {
    const url = `${this.processorUrl}/api/v1/sessions/${encodeURIComponent(session)}/content`;
    return this.#ask(url, token ?? this.#token, [], signal);
  }

  async #ask(url, token, also = [], signal = undefined) {
    let answer;
    try {
      const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
      answer = await fetch(url, { headers, signal, cache: "no-store", credentials: "omit" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "unreachable", `${new URL(url, location.href).host} does not answer; is it up, and reached from here?`);
    }
    if (answer.ok || also.includes(answer.status)) return answer;
    const problem = await answer.json().catch(() => ({}));
    throw new ApiError(answer.status, problem.code ?? "unknown", problem.detail ?? `the answer was ${answer.status}`);
  }
}

/** The path of a session, and of what is below it. */
export function sessionPath(session, ...rest) {
  return ["/api/v1/sessions", session, ...rest].map((part, at) => (at === 0 ? part : encodeURIComponent(part))).join("/");
}

function target(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** Sums of the samples of each name in the Prometheus text format. */
export function metricsOf(text) {
  const sums = new Map();
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)$/.exec(line);
    if (found) sums.set(found[1], (sums.get(found[1]) ?? 0) + Number(found[2]));
  }
  return sums;
}

/** Calls `act` now and every so many seconds, one after the other, while the page is seen; gives what stops it. */
export function poll(seconds, act) {
  let timer = null;
  let stopped = false;
  const round = async () => {
    if (!document.hidden) await act();
    if (!stopped) timer = setTimeout(round, seconds * 1000);
  };
  void round();
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}
