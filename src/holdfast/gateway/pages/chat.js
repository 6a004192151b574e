// The web chat. The protocol is in docs/web-chat.md: say which message was seen last, get everything after it, in order.
// What was said and has no receipt yet is kept for the tab, and sent again under the same name until it has one.

import { element, nodesOf } from "/assets/text.js";

const PAUSES_S = [0.5, 1, 2, 5, 10];
const SILENT_MS = 40_000;
const $ = (id) => document.getElementById(id);
const [log, list, text, state, select, older] = ["log", "messages", "text", "state", "conversations", "older"].map($);
const NEW = "+";

let conversation = nameIn(location.hash) || "main";
let socket = null;
let tries = 0;
let heardAt = 0;
let typingTimer = 0;
let seen = null;      // seq of the newest message here
let first = null;     // seq of the oldest
const items = new Map();  // by id of a message: its node
let pending = load();     // said, without a receipt: [{id, conversation, text}]

// ── the socket ──────────────────────────────────────────────────────────────────────────────────────────────────────

function connect() {
  const address = new URL("/api/chat", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  const mine = new WebSocket(address);
  socket = mine;
  heardAt = Date.now();
  mine.onopen = () => send({ type: "hello", conversation, after: seen });
  mine.onmessage = (event) => {
    if (mine !== socket) return;
    heardAt = Date.now();
    take(JSON.parse(event.data));
  };
  mine.onclose = (event) => {
    if (mine === socket) lost(event.code);
  };
}

async function lost(code) {
  socket = null;
  show("off", "not connected");
  if (code === 4401 || !(await isLoggedIn())) {
    location.assign("/login?next=/chat");
    return;
  }
  const pause_s = PAUSES_S[Math.min(tries, PAUSES_S.length - 1)] * (0.75 + Math.random() / 2);
  tries += 1;
  setTimeout(connect, pause_s * 1000);
}

async function isLoggedIn() {
  try {
    return (await fetch("/api/login")).status !== 401;
  } catch {
    return true;  // the gateway is away; it may come back
  }
}

setInterval(() => {
  if (socket !== null && Date.now() - heardAt > SILENT_MS) socket.close();
}, 5000);
addEventListener("online", () => { tries = 0; });

function send(frame) {
  if (socket !== null && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
}

// ── what it tells ───────────────────────────────────────────────────────────────────────────────────────────────────

function take(frame) {
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  if (frame.type === "welcome") {
    tries = 0;
    offer(frame.conversations);
  } else if (frame.type === "ready") {
    show("on", "connected");
    if (first === null || frame.more) older.hidden = !frame.more;
    for (const one of pending.filter((one) => one.conversation === conversation)) say(one);
  } else if (frame.type === "message") put(frame);
  else if (frame.type === "older") putOlder(frame);
  else if (frame.type === "preview") begin(frame);
  else if (frame.type === "gone") forget(frame.id);
  else if (frame.type === "receipt") receive(frame);
  else if (frame.type === "typing") typing(frame.for_s);
  if (isAtEnd && frame.type !== "older") log.scrollTop = log.scrollHeight;
}

function put(mail) {
  seen = Math.max(seen ?? 0, mail.seq);
  first ??= mail.seq;
  if (mail.who === "agent") typing(0);
  const node = bubble(mail.who, mail.text, new Date(mail.at_ms));
  const known = items.get(mail.id);
  items.set(mail.id, node);
  known?.remove();
  list.append(node);
}

function putOlder(frame) {
  const before = log.scrollHeight;
  const nodes = frame.messages.filter((mail) => !items.has(mail.id)).map((mail) => {
    const node = bubble(mail.who, mail.text, new Date(mail.at_ms));
    items.set(mail.id, node);
    return node;
  });
  list.prepend(...nodes);
  if (frame.messages.length) first = frame.messages[0].seq;
  older.hidden = !frame.more;
  log.scrollTop += log.scrollHeight - before;
}

function begin(frame) {
  typing(0);
  let node = items.get(frame.id);
  if (node === undefined) {
    node = bubble("agent", "", null);
    node.classList.add("preview");
    node.setAttribute("aria-busy", "true");
    items.set(frame.id, node);
    list.append(node);
  }
  node.replaceChildren(...nodesOf(frame.text), about("is being written", false));
}

function forget(id) {
  items.get(id)?.remove();
  items.delete(id);
}

function receive(frame) {
  const one = pending.find((waiting) => waiting.id === frame.id);
  if (one === undefined) return;
  const found = items.get(`u_${one.conversation}:${one.id}`);
  const node = found?.dataset.state === "pending" ? found : undefined;  // else its message has come already
  if (frame.outcome === "failed") {
    node?.lastChild.replaceWith(about(`not stored yet: ${frame.reason}`, true));
    setTimeout(() => say(one), 5000);
    return;
  }
  pending = pending.filter((waiting) => waiting !== one);
  keep();
  if (frame.outcome === "taken" || frame.outcome === "duplicate") {
    node?.lastChild.replaceWith(about("sent", false));
    return;
  }
  node?.classList.add("fault");
  node?.lastChild.replaceWith(about(`not taken: ${frame.reason || frame.outcome}`, true));
}

function typing(for_s) {
  clearTimeout(typingTimer);
  $("typing").textContent = for_s > 0 ? "is writing…" : "";
  if (for_s > 0) typingTimer = setTimeout(() => typing(0), for_s * 1000);
}

// ── what people say ─────────────────────────────────────────────────────────────────────────────────────────────────

function speak() {
  const said = text.value;
  if (!said.trim()) return;
  const one = { id: crypto.randomUUID?.() ?? random(), conversation, text: said };
  pending.push(one);
  keep();
  text.value = "";
  grow();
  say(one);
  log.scrollTop = log.scrollHeight;
}

function say(one) {
  if (!pending.includes(one) || one.conversation !== conversation) return;
  const id = `u_${one.conversation}:${one.id}`;
  if (!items.has(id)) {
    const node = bubble("user", one.text, null);
    node.dataset.state = "pending";
    node.append(about("is being sent", false));
    items.set(id, node);
    list.append(node);
  }
  send({ type: "say", id: one.id, text: one.text });
}

function random() {  // where a page over plain HTTP is not trusted with randomUUID
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function load() {
  try {
    return JSON.parse(sessionStorage.getItem("pending")) ?? [];
  } catch {
    return [];
  }
}

function keep() {
  sessionStorage.setItem("pending", JSON.stringify(pending));
}

// ── what is seen ────────────────────────────────────────────────────────────────────────────────────────────────────

function bubble(who, words, at) {
  const node = document.createElement("li");
  node.className = who;
  node.append(element("span", who === "user" ? "You: " : "Agent: "), ...nodesOf(words));
  node.firstChild.className = "unseen";
  if (at !== null) {
    const time = about(at.toLocaleString([], { dateStyle: "short", timeStyle: "short" }), false);
    node.append(time);
  }
  return node;
}

function about(words, isFault) {
  const node = element("span", words);
  node.className = isFault ? "about fault" : "about";
  return node;
}

function show(kind, words) {
  state.className = `state ${kind}`;
  state.textContent = words;
}

function offer(names) {
  const all = [...new Set(["main", conversation, ...names])];
  select.replaceChildren(...all.map((name) => option(name, name)), option(NEW, "New conversation…"));
  select.value = conversation;
}

function option(value, words) {
  const node = element("option", words);
  node.value = value;
  return node;
}

function change(name) {
  if (name === conversation) return;
  conversation = name;
  history.replaceState(null, "", name === "main" ? location.pathname : `#${name}`);
  seen = first = null;
  items.clear();
  list.replaceChildren();
  older.hidden = true;
  typing(0);
  const before = socket;
  socket = null;
  before?.close();
  show("off", "connecting");
  connect();
  text.focus();
}

function nameIn(hash) {
  const name = hash.slice(1);
  return /^[a-z0-9][a-z0-9-]{0,39}$/.test(name) ? name : "";
}

function grow() {
  text.rows = Math.min(8, text.value.split("\n").length);
}

// ── hands and keys ──────────────────────────────────────────────────────────────────────────────────────────────────

$("say").addEventListener("submit", (event) => { event.preventDefault(); speak(); });
text.addEventListener("input", grow);
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); speak(); }
});
log.addEventListener("keydown", (event) => { if (event.key === "Escape") text.focus(); });
older.firstElementChild.addEventListener("click", () => send({ type: "more", before: first ?? 0 }));
select.addEventListener("change", () => {
  if (select.value !== NEW) { change(select.value); return; }
  select.value = conversation;
  $("name-text").value = "";
  $("name").showModal();
});
$("name").addEventListener("close", () => {
  const name = nameIn(`#${$("name-text").value}`);
  if ($("name").returnValue === "begin" && name) change(name);
});
addEventListener("hashchange", () => change(nameIn(location.hash) || "main"));
$("leave").addEventListener("click", async () => {
  const { csrf } = await (await fetch("/api/login")).json();
  if (csrf !== null) await fetch("/logout", { method: "POST", headers: { "X-Holdfast-CSRF": csrf }, redirect: "manual" });
  location.assign("/login?next=/chat");
});

offer([]);
connect();
