// The console: sign-in, and which view the address names. Reloading the page forgets the token, and so does leaving it.

import { activityView } from "./activity.js";
import { anchorsView } from "./anchors.js";
import { Api, ApiError } from "./api.js";
import { el, message, put } from "./dom.js";
import { healthView } from "./health.js";
import { sessionView } from "./session.js";
import { sessionsView } from "./sessions.js";

const main = document.getElementById("main");
const menu = document.getElementById("menu");
const TABS = [["sessions", "Sessions"], ["anchors", "Anchors"], ["activity", "Activity"], ["health", "Health"]];
let api = null;
let shown = null;
let settings = { processor_url: null };

/** Goes to a view. `quiet` only changes the address: the view is there already. */
function go(name, query = {}, { quiet = false } = {}) {
  const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""));
  const address = `#/${name}${given.size ? `?${given}` : ""}`;
  if (quiet) history.replaceState(null, "", address);
  else location.hash = address;
}

function route() {
  if (api === null) return;
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id] = path.split("/");
  shown?.stop();
  shown = view(name, id, new URLSearchParams(query));
  document.title = `${shown.title} · Lucid Sessions`;
  put(main, shown.element);
  for (const link of menu.querySelectorAll("a[data-view]")) {
    const current = link.dataset.view === name || (link.dataset.view === "sessions" && !TABS.some(([tab]) => tab === name));
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function view(name, id, query) {
  if (name === "session" && id) return sessionView(api, decoded(id));
  if (name === "anchors") return anchorsView(api);
  if (name === "activity") return activityView(api);
  if (name === "health") return healthView(api);
  return sessionsView(api, query, go);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // the service will say that there is no such session
  }
}

function signIn() {
  const token = el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-help" });
  const said = el("div");
  const button = el("button", { type: "submit", class: "primary" }, "Sign in");
  const form = el("form", { class: "card sign-in", submit: (event) => { event.preventDefault(); void attempt(); } },
    el("h1", {}, "Sign in"),
    el("div", { class: "field" }, el("label", { for: "token" }, "Token"), token),
    el("p", { class: "quiet", id: "token-help" }, "A token with the role audit; with the role replay, too, to play recordings. It stays in this page's memory: a reload forgets it."),
    said, button);

  async function attempt() {
    const asked = new Api(token.value.trim(), settings.processor_url);
    button.disabled = true;
    try {
      await asked.json("/api/v1/sessions", { limit: 1 });
      api = asked;
      menu.hidden = false;
      route();
    } catch (error) {
      put(said, message("fault", refusal(error)));
      token.focus();
      token.select();
    } finally {
      button.disabled = false;
    }
  }

  shown?.stop();
  shown = null;
  menu.hidden = true;
  document.title = "Sign in · Lucid Sessions";
  put(main, form);
  token.focus();
}

function refusal(error) {
  if (!(error instanceof ApiError)) return String(error);
  if (error.status === 401) return `This token is not valid here: ${error.detail}.`;
  if (error.status === 403) return `This token is valid, but not for the console: ${error.detail}.`;
  return error.detail;
}

function begin() {
  const out = el("button", { type: "button", class: "small", click: () => { api = null; signIn(); } }, "Sign out");
  put(menu, TABS.map(([name, word]) => el("a", { href: `#/${name}`, "data-view": name }, word)), out);
  // The address is the view's, so this link may not change it.
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
  window.addEventListener("hashchange", route);
  signIn();
}

try {
  settings = await (await fetch("/console/config.json", { credentials: "omit" })).json();
} catch {
  // then there are no replays; whatever else is wrong, signing in will tell
}
begin();
