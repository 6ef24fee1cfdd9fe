// Keeps pages live, moves through the grid with keys, shows a span without loading a page, and imports dropped files.
// The pages can be read without this script.
"use strict";

const news = document.getElementById("news");
const problem = document.getElementById("problem");
const announce = (text) => { news.textContent = text; };
const showProblem = (text) => { problem.textContent = text; problem.hidden = !text; };
const grid = () => document.querySelector("[role=treegrid]");
const rows = () => [...document.querySelectorAll("[role=treegrid] tbody tr")];
const results = () => document.getElementById("results");

/* Shows times in the reader's time zone. */
const parts = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 };
function localTimes(within) {
  for (const time of within.querySelectorAll("time")) {
    time.title = time.dateTime;
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, parts);
  }
}

/* Live updates: after each event, the page fetches its new contents and replaces them if they have changed. It waits while
   the reader has paused it, has selected text, or has scrolled down in the list. Forms are replaced only when the lab has changed
   them, so that a choice that isn't sent yet stays. */
const collapsed = new Set(); // the ids of the collapsed rows
let shown = results()?.innerHTML; // the HTML from the server, before this script changed it
const proxies = document.getElementById("hops");
let shownProxies = proxies?.innerHTML;
let paused = false;
let lastAnnounced = 0; // when a live update was last announced, in milliseconds since 1970

const mustWait = () => paused || document.hidden
  || (results().contains(getSelection().anchorNode) && !getSelection().isCollapsed)
  || (!grid() && scrollY > results().offsetTop + 200);

async function refresh() {
  const address = location.href;
  const answer = await fetch(address);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (address !== location.href) return refresh();
  const nextProxies = page.getElementById("hops");
  if (proxies && nextProxies && nextProxies.innerHTML !== shownProxies && !proxies.contains(document.activeElement)) {
    shownProxies = nextProxies.innerHTML;
    proxies.replaceChildren(...nextProxies.childNodes);
  }
  const [now, next] = [results(), page.getElementById("results")];
  if (!now || !next || next.innerHTML === shown) return;
  shown = next.innerHTML;
  const focus = document.activeElement?.closest("#results [id], #results a");
  const found = focus && (focus.id ? `#${focus.id}` : `a[href="${CSS.escape(focus.getAttribute("href"))}"]`);
  const open = [...now.querySelectorAll("details[id][open]")].map((it) => it.id);
  now.replaceChildren(...next.childNodes);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  localTimes(now);
  const service = document.querySelector("form.filter select[name=service]");
  const services = page.querySelector("form.filter select[name=service]");
  if (service && services && document.activeElement !== service) {
    const chosen = service.value;
    service.replaceChildren(...services.childNodes);
    service.value = chosen;
  }
  for (const id of collapsed) toggle(document.getElementById(id), false);
  start();
  const again = found && document.querySelector(`#results ${found}`);
  if (again?.matches("tr")) focusRow(again, false);
  else (again?.querySelector("summary") ?? again)?.focus({ preventScroll: true });
  // Announce updates at most every ten seconds, so that a screen reader can also read the page.
  if (Date.now() - lastAnnounced > 10_000) { lastAnnounced = Date.now(); announce(now.querySelector("caption")?.textContent ?? ""); }
}

function live() {
  if (!results()?.dataset.live) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "live";
  document.querySelector("header").append(button);
  let source, busy = false, waiting = false;
  const label = () => { button.textContent = paused ? "Paused: go on" : waiting ? "Something new: show" : "Live: pause"; };
  const update = async () => {
    waiting = true;
    if (mustWait()) { label(); return; }
    if (busy) return;
    busy = true;
    try { while (waiting) { waiting = false; await refresh(); } } catch { /* The lab has ended. The event source tries again. */ }
    busy = false;
    label();
  };
  // A browser opens few connections to one server, so a hidden page closes its own.
  const connect = () => {
    if (document.hidden || (source && source.readyState !== EventSource.CLOSED)) return;
    source = new EventSource(results().dataset.live);
    source.onmessage = update;
    source.onerror = () => { document.documentElement.dataset.offline = ""; };
    // Fetch the spans that arrived while the lab was unreachable.
    source.onopen = () => { if ("offline" in document.documentElement.dataset) update(); delete document.documentElement.dataset.offline; };
  };
  const visibilityChanged = () => { if (document.hidden) source?.close(); else { connect(); update(); } };
  button.onclick = () => {
    if (!paused && waiting) { scrollTo(0, 0); getSelection().empty(); } else paused = !paused;
    if (!paused) update();
    label();
  };
  addEventListener("scroll", () => { if (waiting && !mustWait()) update(); }, { passive: true });
  document.addEventListener("visibilitychange", visibilityChanged);
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => { if (event.persisted) visibilityChanged(); });
  label();
  connect();
}

/* The grid of spans. */
function toggle(row, open) {
  if (!row?.hasAttribute("aria-expanded")) return;
  row.setAttribute("aria-expanded", open);
  open ? collapsed.delete(row.id) : collapsed.add(row.id);
  const all = rows();
  const first = all.indexOf(row) + 1;
  const end = first + Number(row.dataset.below);
  for (let index = first; index < end; index++) {
    all[index].hidden = !open;
    // Rows that were collapsed below stay collapsed.
    if (open && all[index].getAttribute("aria-expanded") === "false") index += Number(all[index].dataset.below);
  }
}

function focusRow(row, scroll = true) {
  if (!row) return;
  for (const other of document.querySelectorAll("[role=treegrid] tbody tr[tabindex='0']")) other.tabIndex = -1;
  row.tabIndex = 0;
  row.focus({ preventScroll: true });
  if (scroll) row.scrollIntoView({ block: "nearest" });
}

function toggleAll() {
  const open = rows().some((row) => row.getAttribute("aria-expanded") === "false");
  const outer = rows().filter((row) => row.hasAttribute("aria-expanded"));
  // Collapse the innermost rows first, so that no row is hidden before its turn. Expand the outermost first.
  for (const row of open ? outer : outer.reverse()) toggle(row, open);
}

function start() {
  if (!grid()) return;
  grid().querySelectorAll("tbody a").forEach((link) => { link.tabIndex = -1; });
  const row = grid().querySelector("tr[aria-selected=true]") ?? grid().querySelector("tbody tr");
  if (row) row.tabIndex = 0;
}

function parentRow(row) {
  const level = Number(row.getAttribute("aria-level"));
  const all = rows();
  for (let index = all.indexOf(row) - 1; index >= 0; index--) {
    if (Number(all[index].getAttribute("aria-level")) < level) return all[index];
  }
}

function gridKey(event, row) {
  const all = rows().filter((other) => !other.hidden);
  const index = all.indexOf(row);
  const open = row.getAttribute("aria-expanded");
  const move = {
    ArrowDown: () => focusRow(all[index + 1]),
    ArrowUp: () => focusRow(all[index - 1]),
    j: () => focusRow(all[index + 1]),
    k: () => focusRow(all[index - 1]),
    Home: () => focusRow(all[0]),
    End: () => focusRow(all.at(-1)),
    PageDown: () => focusRow(all[Math.min(index + 20, all.length - 1)]),
    PageUp: () => focusRow(all[Math.max(index - 20, 0)]),
    ArrowRight: () => (open === "false" ? toggle(row, true) : open && focusRow(all[index + 1])),
    ArrowLeft: () => (open === "true" ? toggle(row, false) : focusRow(parentRow(row))),
    Enter: () => show(row.querySelector("a").href),
    " ": () => toggle(row, open === "false"),
  }[event.key];
  if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  move();
}

/* The detail pane of a span. */
const pane = document.getElementById("span");
let latest = 0; // the number of the last request for a span; answers to earlier ones are ignored

function mark(id) {
  for (const row of document.querySelectorAll("tr[aria-selected=true]")) row.setAttribute("aria-selected", "false");
  const row = document.getElementById(id);
  row?.setAttribute("aria-selected", "true");
  return row;
}

async function show(address, remember = true) {
  const url = new URL(address, location.href);
  const id = url.searchParams.get("span");
  const focus = new URL(location.href).searchParams.get("focus");
  if (focus && url.pathname === location.pathname) url.searchParams.set("focus", focus);
  const number = ++latest;
  let html;
  try {
    const answer = await fetch(`${url.pathname}/spans/${id}`);
    if (number !== latest) return;
    if (!answer.ok) { location.assign(url); return; }
    html = await answer.text();
  } catch {
    if (number === latest) showProblem("The lab does not answer.");
    return;
  }
  if (number !== latest) return;
  showProblem("");
  pane.innerHTML = html;
  pane.hidden = false;
  pane.scrollTop = 0;
  localTimes(pane);
  if (remember) history.pushState(null, "", url);
  const row = mark(`s${id}`);
  pane.focus({ preventScroll: true });
  row?.scrollIntoView({ block: "nearest" });
}

function hide(remember = true) {
  latest++;
  if (!pane || pane.hidden) return;
  pane.hidden = true;
  const row = document.querySelector("tr[aria-selected=true]");
  mark("");
  const url = new URL(location.href);
  url.searchParams.delete("span");
  if (remember) history.pushState(null, "", url);
  focusRow(row);
}

addEventListener("popstate", () => {
  if (!pane) return;
  if (new URL(location.href).searchParams.has("span")) show(location.href, false); else hide(false);
});

/* Single-letter keys can be switched off for readers who use speech input (WCAG 2.1.4). */
const letterKeysOn = () => localStorage.getItem("lab-keys") !== "off";

/* Keys that move from trace to trace in the list. */
function listKey(event) {
  const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  const active = document.activeElement;
  if (!step || (event.key.startsWith("Arrow") && !active.closest("#results"))) return;
  const links = [...document.querySelectorAll("#results table.traces tbody th a")];
  const next = links[links.indexOf(active) + step];
  if (next) { event.preventDefault(); next.focus(); }
}

addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, select, textarea");
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Escape") { typing ? event.target.blur() : hide(); return; }
  if (typing || (event.key.length === 1 && event.key !== " " && !letterKeysOn())) return;
  const search = document.querySelector("input[type=search]");
  if (event.key === "/" && search) { event.preventDefault(); search.focus(); search.select(); return; }
  const row = event.target.closest?.("[role=treegrid] tbody tr");
  if (row) gridKey(event, row);
  else if (search) listKey(event);
  else if (pane && pane.contains(event.target) && "jk".includes(event.key)) {
    // Move to the next span and keep the detail pane open.
    const all = rows().filter((other) => !other.hidden);
    const now = all.indexOf(document.querySelector("tr[aria-selected=true]"));
    const next = all[now + (event.key === "j" ? 1 : -1)];
    if (next) show(next.querySelector("a").href);
  } else if (grid() && "jk".includes(event.key)) focusRow(grid().querySelector("tr[tabindex='0']"));
});

addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  const twist = event.target.closest(".twist");
  if (twist) {
    const row = twist.closest("tr");
    toggle(row, row.getAttribute("aria-expanded") === "false");
    focusRow(row);
    return;
  }
  if (event.target.closest("#span .close")) { event.preventDefault(); hide(); return; }
  const row = event.target.closest("[role=treegrid] tbody tr");
  const link = event.target.closest("a");
  // Links to other pages work as usual. Selecting text isn't a click.
  if (!row || (link && !link.closest(".name")) || !getSelection().isCollapsed) return;
  event.preventDefault();
  show(row.querySelector("a").href);
});

/* Copies a trace to the clipboard. */
async function copy(button) {
  try {
    const text = await (await fetch(button.dataset.copy)).text();
    await navigator.clipboard.writeText(text);
    announce("Copied");
    button.textContent = "Copied";
  } catch (error) {
    announce(`Not copied: ${error.message}`);
    button.textContent = "Not copied";
  }
}

const createButton = (text, act) => {
  const it = document.createElement("button");
  it.type = "button";
  it.textContent = text;
  it.onclick = () => act(it);
  return it;
};

function addControls() {
  const download = document.querySelector(".actions a[download]");
  if (download && navigator.clipboard) {
    const copyButton = createButton("Copy as OTLP JSON", copy);
    copyButton.dataset.copy = download.href;
    download.after(copyButton);
  }
  if (grid()) document.querySelector(".actions").append(createButton("Collapse or expand all", toggleAll));
  const form = document.querySelector("form.filter");
  if (!form) return;
  const file = document.createElement("input");
  Object.assign(file, { type: "file", hidden: true, multiple: true, onchange: () => importFiles([...file.files]) });
  form.append(createButton("Open a file", () => file.click()), file);
  const keys = document.createElement("label");
  keys.className = "keys";
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: letterKeysOn() });
  box.onchange = () => localStorage.setItem("lab-keys", box.checked ? "on" : "off");
  keys.append(box, " Keys / j k");
  form.append(keys);
}

/* Shows what the last import has left out, on the page to which it led. */
const NOT_SHOWN = "lab-not-shown";
showProblem(sessionStorage.getItem(NOT_SHOWN) ?? "");
sessionStorage.removeItem(NOT_SHOWN);

/* Imports a file that was chosen or dropped on the page. */
async function importFile(file) {
  const answer = await fetch("/traces/import", { method: "POST", headers: { "content-type": "application/json" }, body: file });
  const result = await answer.json();
  if (!answer.ok) throw new Error(`${file.name} was not taken: ${result.message}`);
  return { ...result, name: file.name };
}

async function importFiles(files) {
  showProblem("");
  try {
    const results = [];
    for (const file of files) results.push(await importFile(file));
    const partly = results.find(({ unread }) => unread);
    if (partly) {
      showProblem(`${partly.name}: spans taken: ${partly.spans}; parts that can't be read: ${partly.unread}. The first: ${partly.problems[0]}`);
    } else {
      const left = results.filter(({ notShown }) => notShown).map(({ name, notShown }) => `${name}: not shown: ${notShown}`);
      if (left.length) sessionStorage.setItem(NOT_SHOWN, left.join("; "));
      const only = results.length === 1 && results[0].traceId;
      location.assign(only ? `/traces/${only}` : "/traces");
    }
  } catch (error) {
    showProblem(error.message);
  }
}

addEventListener("dragover", (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
addEventListener("drop", (event) => {
  const files = [...(event.dataTransfer?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  importFiles(files);
});

document.documentElement.dataset.script = "";
localTimes(document);
start();
addControls();
live();
if (pane && !pane.hidden) document.querySelector("tr[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
