// Which view is shown, and when it is brought up to date.
import { get, post, remove } from "./api.js";
import { byId, show } from "./dom.js";
import * as experience from "./experience.js";
import * as explain from "./explain.js";
import * as map from "./map.js";
import * as overview from "./overview.js";
import * as search from "./search.js";
import { time } from "./words.js";

const EVERY_MS = 2000;
const VIEWS = ["overview", "map", "search", "experience", "explain"];

let view = "overview";
let paused = false;
let open = false;
let timer = null;

// The view in the address: #/experience/ID
const place = () => {
  const [, name, ...rest] = location.hash.split("/");
  let argument = rest.join("/");
  try {
    argument = decodeURIComponent(argument);
  } catch {
    argument = "";
  }
  return [VIEWS.includes(name) ? name : "overview", argument];
};

const showOnly = (name) => {
  for (const each of [...VIEWS, "login"]) byId(each).hidden = each !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${byId(`${name}-title`).textContent} · Relive`;
};

const failed = (error) => {
  if (error.status === 401 || error.status === 403) return login();
  show(byId("problem"), error.message);
  if (error.status === 0) {
    byId("phase").textContent = "not reached";
    byId("phase").className = "badge bad";
  }
};

const tick = async () => {
  clearTimeout(timer);
  if (!open) return;
  try {
    const state = await get("api/state");
    overview.showState(state);
    if (view === "overview") await overview.refresh(state);
    if (view === "map" && state.phase === "serving" && !state.stopped) await map.refresh();
    show(byId("problem"), null);
    byId("updated").textContent = `As of ${time(state.now_us)}.`;
  } catch (error) {
    failed(error);
  }
  clearTimeout(timer);
  if (open && !paused && !document.hidden) timer = setTimeout(tick, EVERY_MS);
};

const go = async (focus = true) => {
  if (!open) return;
  const [name, argument] = place();
  view = name;
  showOnly(name);
  show(byId("problem"), null);
  if (focus) byId(`${name}-title`).focus();
  window.scrollTo(0, 0);
  tick();
  try {
    if (name === "experience" && argument) await experience.open(argument);
    if (name === "explain" && argument) await explain.open(argument);
    if (name === "search" && argument) search.moreLike(argument);
  } catch (error) {
    failed(error);
  }
  if (name === view) document.title = `${byId(`${name}-title`).textContent} · Relive`;
};

const login = () => {
  open = false;
  clearTimeout(timer);
  byId("logout").hidden = true;
  showOnly("login");
  byId("phase").textContent = "log in";
  byId("phase").className = "badge";
  byId("token").focus();
};

const begin = async () => {
  try {
    const session = await get("api/session");
    byId("logout").hidden = !session.needed || !session.open;
    if (!session.open) return login();
    open = true;
    go(false);
  } catch (error) {
    failed(error);
    timer = setTimeout(begin, EVERY_MS);
  }
};

byId("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await post("api/session", { token: byId("token").value });
    byId("token").value = "";
    show(byId("login-problem"), null);
    begin();
  } catch (error) {
    show(byId("login-problem"), error.message);
    byId("token").focus();
  }
});
byId("logout").addEventListener("click", async () => {
  await remove("api/session").catch(() => {});
  for (const name of ["cards", "hits", "history", "explained", "experience-content", "map-plot"]) byId(name).replaceChildren();
  login();
});
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  if (!paused) tick();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) tick(); });
window.addEventListener("hashchange", () => { if (location.hash !== "#main") go(); });
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
search.start();
experience.start();
explain.start();
begin();
