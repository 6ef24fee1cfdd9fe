// What a page without a script cannot do: stay live, walk through the grid with keys, show a span without a new page,
// take a file that is dropped on it. Without it everything can still be read.
"use strict";

const news = document.getElementById("news");
const problem = document.getElementById("problem");
const say = (text) => { news.textContent = text; };
const complain = (text) => { problem.textContent = text; problem.hidden = !text; };
const grid = () => document.querySelector("[role=treegrid]");
const rows = () => [...document.querySelectorAll("[role=treegrid] tbody tr")];
const results = () => document.getElementById("results");

/* Times in the reader's own zone. */
const parts = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 };
function localTimes(within) {
  for (const time of within.querySelectorAll("time")) {
    time.title = time.dateTime;
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, parts);
  }
}

/* Live: an event says that there is something new; the page then fetches itself and changes what has changed. It waits
   while the reader has paused it, has marked a text to copy, or is further down in the list. */
const closed = new Set(); // ids of the rows that are collapsed
let shown = results()?.innerHTML; // as it came, before this script changed it
let paused = false;
let said = 0;

const held = () => paused || document.hidden
  || (results().contains(getSelection().anchorNode) && !getSelection().isCollapsed)
  || (!grid() && scrollY > 200);

async function refresh() {
  const address = location.href;
  const answer = await fetch(address);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (address !== location.href) return refresh();
  const [now, next] = [results(), page.getElementById("results")];
  if (!now || !next || next.innerHTML === shown) return;
  shown = next.innerHTML;
  const focus = document.activeElement?.closest("#results [id], #results a");
  const found = focus && (focus.id ? `#${focus.id}` : `a[href="${CSS.escape(focus.getAttribute("href"))}"]`);
  now.replaceChildren(...next.childNodes);
  localTimes(now);
  const service = document.querySelector("form.filter select[name=service]");
  const services = page.querySelector("form.filter select[name=service]");
  if (service && services && document.activeElement !== service) {
    const chosen = service.value;
    service.replaceChildren(...services.childNodes);
    service.value = chosen;
  }
  for (const id of closed) toggle(document.getElementById(id), false);
  start();
  const again = found && document.querySelector(`#results ${found}`);
  if (again?.matches("tr")) focusRow(again, false); else again?.focus({ preventScroll: true });
  // Whoever listens to the page must also hear something else.
  if (Date.now() - said > 10_000) { said = Date.now(); say(now.querySelector("caption")?.textContent ?? ""); }
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
    if (held()) { label(); return; }
    if (busy) return;
    busy = true;
    try { while (waiting) { waiting = false; await refresh(); } } catch { /* The lab has ended; the source tries again. */ }
    busy = false;
    label();
  };
  // A browser has few connections for one lab: a page that nobody sees gives its own back.
  const connect = () => {
    if (document.hidden || (source && source.readyState !== EventSource.CLOSED)) return;
    source = new EventSource(results().dataset.live);
    source.onmessage = update;
    source.onerror = () => { document.documentElement.dataset.offline = ""; };
    // What came while there was no connection.
    source.onopen = () => { if ("offline" in document.documentElement.dataset) update(); delete document.documentElement.dataset.offline; };
  };
  const seen = () => { if (document.hidden) source?.close(); else { connect(); update(); } };
  button.onclick = () => {
    if (!paused && waiting) { scrollTo(0, 0); getSelection().empty(); } else paused = !paused;
    if (!paused) update();
    label();
  };
  addEventListener("scroll", () => { if (waiting && !held()) update(); }, { passive: true });
  document.addEventListener("visibilitychange", seen);
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => { if (event.persisted) seen(); });
  label();
  connect();
}

/* The grid. */
function toggle(row, open) {
  if (!row?.hasAttribute("aria-expanded")) return;
  row.setAttribute("aria-expanded", open);
  open ? closed.delete(row.id) : closed.add(row.id);
  const all = rows();
  const first = all.indexOf(row) + 1;
  const end = first + Number(row.dataset.below);
  for (let index = first; index < end; index++) {
    all[index].hidden = !open;
    // What was closed below stays closed.
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
  // Inside out, so that none is hidden when its turn comes; outside in to open.
  for (const row of open ? outer : outer.reverse()) toggle(row, open);
}

function start() {
  if (!grid()) return;
  grid().querySelectorAll("tbody a").forEach((link) => { link.tabIndex = -1; });
  const row = grid().querySelector("tr[aria-selected=true]") ?? grid().querySelector("tbody tr");
  if (row) row.tabIndex = 0;
}

function above(row) {
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
    ArrowLeft: () => (open === "true" ? toggle(row, false) : focusRow(above(row))),
    Enter: () => show(row.querySelector("a").href),
    " ": () => toggle(row, open === "false"),
  }[event.key];
  if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  move();
}

/* One span in detail. */
const pane = document.getElementById("span");
let latest = 0; // of several that were asked for, the last one counts

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
  const mine = ++latest;
  let html;
  try {
    const answer = await fetch(`${url.pathname}/spans/${id}`);
    if (mine !== latest) return;
    if (!answer.ok) { location.assign(url); return; }
    html = await answer.text();
  } catch {
    if (mine === latest) complain("The lab does not answer.");
    return;
  }
  if (mine !== latest) return;
  complain("");
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

/* Keys of one letter can be switched off, for those who speak to their browser. */
const letters = () => localStorage.getItem("lab-keys") !== "off";

/* The list: keys go from trace to trace. */
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
  if (typing || (event.key.length === 1 && event.key !== " " && !letters())) return;
  const search = document.querySelector("input[type=search]");
  if (event.key === "/" && search) { event.preventDefault(); search.focus(); search.select(); return; }
  const row = event.target.closest?.("[role=treegrid] tbody tr");
  if (row) gridKey(event, row);
  else if (search) listKey(event);
  else if (pane && pane.contains(event.target) && "jk".includes(event.key)) {
    // From span to span while the detail stays open.
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
  // A link to elsewhere is one; a text that was marked is not a click.
  if (!row || (link && !link.closest(".name")) || !getSelection().isCollapsed) return;
  event.preventDefault();
  show(row.querySelector("a").href);
});

/* Copy. */
async function copy(button) {
  try {
    const text = await (await fetch(button.dataset.copy)).text();
    await navigator.clipboard.writeText(text);
    say("Copied");
    button.textContent = "Copied";
  } catch (error) {
    say(`Not copied: ${error.message}`);
    button.textContent = "Not copied";
  }
}

const button = (text, act) => {
  const it = document.createElement("button");
  it.type = "button";
  it.textContent = text;
  it.onclick = () => act(it);
  return it;
};

function offerMore() {
  const download = document.querySelector(".actions a[download]");
  if (download && navigator.clipboard) {
    const copying = button("Copy as OTLP JSON", copy);
    copying.dataset.copy = download.href;
    download.after(copying);
  }
  if (grid()) document.querySelector(".actions").append(button("Collapse or expand all", toggleAll));
  const form = document.querySelector("form.filter");
  if (!form) return;
  const file = document.createElement("input");
  Object.assign(file, { type: "file", hidden: true, multiple: true, onchange: () => takeAll([...file.files]) });
  form.append(button("Open a file", () => file.click()), file);
  const keys = document.createElement("label");
  keys.className = "keys";
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: letters() });
  box.onchange = () => localStorage.setItem("lab-keys", box.checked ? "on" : "off");
  keys.append(box, " Keys / j k");
  form.append(keys);
}

/* A file of OTLP JSON, chosen or dropped anywhere. */
async function take(file) {
  const answer = await fetch("/traces/import", { method: "POST", headers: { "content-type": "application/json" }, body: file });
  const taken = await answer.json();
  if (!answer.ok) throw new Error(`${file.name} was not taken. ${taken.message}`);
  return { ...taken, name: file.name };
}

async function takeAll(files) {
  complain("");
  try {
    const taken = [];
    for (const file of files) taken.push(await take(file));
    const partly = taken.find(({ unread }) => unread);
    if (partly) {
      complain(`${partly.name}: spans taken: ${partly.spans}; documents that were not, or not whole: ${partly.unread}. The first: ${partly.problems[0]}`);
    } else {
      const only = taken.length === 1 && taken[0].traceId;
      location.assign(only ? `/traces/${only}` : "/traces");
    }
  } catch (error) {
    complain(error.message);
  }
}

addEventListener("dragover", (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });
addEventListener("drop", (event) => {
  const files = [...(event.dataTransfer?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  takeAll(files);
});

document.documentElement.dataset.script = "";
localTimes(document);
start();
offerMore();
live();
if (pane && !pane.hidden) document.querySelector("tr[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
