// The dashboard. It reads what the routes tell and gives the orders that the command line gives, no others. Whatever
// people or models said stays text: every node is made here, nothing is parsed as HTML.
import { element, nodesOf } from "./text.js";
import { Lanes, laneColour } from "./lanes.js";

const LOOK_MS = 1000, QUIET_MS = 5000, ROWS_MAX = 500;
const at = (id) => document.getElementById(id);
let csrf = null, sinceMs = 0, after = null, paceMs = LOOK_MS, failures = 0;

async function ask(path, body) {
  const headers = body === undefined ? {} : { "content-type": "application/json", "x-holdfast-csrf": csrf ?? "" };
  const reply = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
  if (reply.status === 401) { location.assign("/login?next=/"); throw new Error("not logged in"); }
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error?.message ?? `status ${reply.status}`);
  return found;
}

const when = (ms) => ms == null ? "" : new Date(ms).toLocaleString();
const long = (ms) => ms < 1000 ? `${Math.round(ms)} ms` : ms < 120e3 ? `${(ms / 1000).toFixed(1)} s` :
  ms < 7200e3 ? `${Math.round(ms / 60e3)} min` : `${(ms / 3600e3).toFixed(1)} h`;

function button(text, act, className) {
  const node = element("button", text);
  node.type = "button";
  if (className) node.className = className;
  node.addEventListener("click", async () => {
    if (node.ariaBusy === "true") return;
    node.ariaBusy = "true";  // not disabled: that would lose the focus, and where the keyboard was
    try { await act(); } catch (error) { show("That was refused", [element("p", error.message)]); }
    node.ariaBusy = null;
  });
  return node;
}

// ── what is shown of one thing ──

function show(title, nodes, orders = []) {
  at("detail-title").textContent = title;
  at("detail-orders").replaceChildren(...orders);
  at("detail-body").replaceChildren(...nodes);
  at("detail-body").classList.remove("active-only");
  if (!at("detail").open) at("detail").showModal();
  at("detail-body").scrollTop = 0;
}

async function why(id) {
  const found = await ask(`/api/why/${encodeURIComponent(id)}`);
  const list = document.createElement("ol");
  for (const line of found.lines) {
    const item = document.createElement("li");
    const time = element("time", when(line.at_ms));
    const evidence = element("span", line.evidence);
    evidence.className = "evidence";
    item.append(time, element("span", line.text), document.createTextNode(" "), evidence);
    list.append(item);
  }
  const orders = [button("Conversation", () => conversation(found.session))];
  if (found.kind === "input" && ["queued", "running"].includes(found.state))
    orders.unshift(button("Stop it", async () => { await ask(`/api/inputs/${found.id}/cancel`, {}); await why(id); }));
  if (found.kind === "turn" && found.state === "running")
    orders.unshift(button("Stop it", async () => { await ask(`/api/turns/${found.id}/cancel`, {}); await why(id); }));
  show(`${found.session}: ${found.state}`, [list], orders);
}

async function conversation(session, raw = false) {
  const found = await ask(`/api/sessions/${encodeURIComponent(session)}/transcript?limit=200${raw ? "&raw=1" : ""}`);
  const nodes = found.more ? [element("p", "The end of it; `holdfast transcript` shows all.")] : [];
  const kinds = { user: "not shown to the model", audit: "for audit only" };
  for (const line of found.lines) {
    const item = document.createElement("div");
    if (raw) { const pre = element("pre", line.text); pre.tabIndex = 0; item.append(pre); nodes.push(item); continue; }
    item.className = line.beside ? "line beside" : "line";
    item.append(element("strong", line.heading));
    const tags = [kinds[line.visibility], line.beside && "another branch"].filter(Boolean);
    for (const text of tags) { const tag = element("span", text); tag.className = "tag"; item.append(tag); }
    item.append(...nodesOf(line.text));
    nodes.push(item);
  }
  if (found.lines.length === 0) nodes.push(element("p", "Nothing has been said here."));
  const orders = [button("Why?", () => why(session)), button(raw ? "Read" : "Raw lines", () => conversation(session, !raw))];
  if (!raw && found.lines.some((line) => line.beside)) {
    const branches = button("Other branches", () => {
      const hides = at("detail-body").classList.toggle("active-only");
      branches.setAttribute("aria-pressed", String(!hides));
    });
    branches.setAttribute("aria-pressed", "true");
    orders.push(branches);
  }
  show(session, nodes, orders);
}

// ── turns ──

const lanes = new Lanes(at("lanes"), at("canvas"), at("tall"), (turn, opened) => {
  if (opened) { why(turn.input_id ?? turn.id).catch((error) => show("Why", [element("p", error.message)])); return; }
  if (!turn) { at("chosen").textContent = ""; return; }
  const marks = turn.marks.map((mark) => mark.text).join("; ");
  at("chosen").textContent = `${turn.session}, lane ${turn.lane}: ${turn.state}, ${when(turn.from_ms)}, ` +
    `${turn.until_ms ? long(turn.until_ms - turn.from_ms) : "running"}${marks ? `; ${marks}` : ""}`;
});
lanes.moved = () => { at("live").setAttribute("aria-pressed", String(lanes.live)); told(); };
/** Which colour is which lane, of those in view. */
function legend() {
  const names = [...new Set([...lanes.turns.values()].map((turn) => turn.lane))].sort();
  if (at("lane-legend").dataset.names === names.join()) return;
  at("lane-legend").dataset.names = names.join();
  at("lane-legend").replaceChildren(...names.slice(0, 12).map((name) => {
    const item = element("li", name);
    item.className = `lane${laneColour(name)}`;
    return item;
  }));
}
const told = () => { at("span").textContent = `${long(lanes.spanMs)} shown, ${lanes.rows.length} sessions`; };
at("nearer").addEventListener("click", () => { lanes.zoom(.6); told(); });
at("farther").addEventListener("click", () => { lanes.zoom(1.7); told(); });
at("live").addEventListener("click", () => { lanes.follow(!lanes.live); lanes.moved(); });
at("filter").addEventListener("input", () => { lanes.find(at("filter").value); told(); });

async function lookAtTurns() {
  const running = [...lanes.turns.values()].filter((turn) => turn.until_ms === null || turn.bars.some((bar) => bar.until_ms === null));
  const also = running.map((turn) => turn.id).slice(0, 400).join(",");
  const found = await ask(`/api/timeline?limit=${sinceMs ? 2000 : 10000}&since_ms=${sinceMs}&also=${also}${after === null ? "" : `&after=${after}`}`);
  sinceMs = Math.max(0, found.now_ms - 2000);  // a turn is committed a little later than it is named
  after = found.told;
  paceMs = Math.min(3000, Math.max(LOOK_MS, found.turns.length * 30));  // who is busy is asked less often
  lanes.update(found.turns, found.now_ms);
  told(); legend();
}

async function lookAtAll() {
  const found = await ask("/api/overview"), sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
  at("chat").hidden = !found.chat;
  at("held").hidden = found.held === null;
  at("held").textContent = found.held === null ? "" : `Work is held back: ${found.held.text}`;
  const items = [];
  const count = (number, text, bad) => {
    const item = document.createElement("li");
    item.append(element("b", String(number)), document.createTextNode(` ${text}`));
    if (bad) item.className = "bad";
    items.push(item);
  };
  const waited = found.oldest_accepted_ms === null ? 0 : found.now_ms - found.oldest_accepted_ms;
  const lanesOf = (counts) => Object.keys(counts).length > 1 ?
    ` (${Object.entries(counts).map(([name, number]) => `${name} ${number}`).join(", ")})` : "";
  count(sum(found.running), `running${lanesOf(found.running)}`);
  count(sum(found.waiting), `waiting${lanesOf(found.waiting)}${waited ? `, the first for ${long(waited)}` : ""}`, waited > 600e3);
  const late = found.undelivered.filter((one) => found.now_ms - one.since_ms > 60e3);
  count(found.undelivered.reduce((all, one) => all + one.count, 0), "undelivered", late.length > 0);
  count(found.approvals, "questions wait for a person", found.approvals > 0);
  const still = found.turns.filter((turn) => turn.work?.event);
  if (still.length) count(still.length, `stand still: ${still.map((turn) => turn.session).slice(0, 3).join(", ")}`, true);
  at("counts").replaceChildren(...items);
}

// ── lists ──

const link = (text, act) => button(text, act, "link");
const KINDS = { takeover: "takeover", lock_timeout: "lock not had", chain_walk: "walk down a chain", pin: "pinned model",
  standstill: "stood still", recovery: "recovery", died: "death", failed: "failure", dead_letter: "dead letter",
  unknown_delivery: "fate unknown" };
const LISTS = {
  queue: { title: "Queue", head: ["Input", "Session", "Lane", "From", "Before it", "Waits since", "Mode", ""],
    rows: async () => (await ask("/api/inputs?state=queued&limit=1000")).inputs.reverse().map((one) => [link(one.id.slice(0, 15), () => why(one.id)),
      link(one.session, () => conversation(one.session)), one.lane, one.source, one.position ?? "", when(one.accepted_at_ms), one.queue,
      [button("Stop", async () => { await ask(`/api/inputs/${one.id}/cancel`, {}); await lookAtList(); })]]) },
  sessions: { title: "Sessions", head: ["Session", "Title", "Waiting", "Owned by", "Model", "Last used", "Bytes"],
    rows: async () => (await ask("/api/sessions?limit=5000")).sessions.map((one) => [link(one.key, () => conversation(one.key)),
      one.title ?? "", one.queued || "", one.owner_turn ? link(`${one.owner_lane}`, () => why(one.owner_turn)) : "",
      one.pin ? `${one.pin.model} (${one.pin.source}, ${one.pin.reason})` : one.fallback ? `${one.fallback.active} in place of ${one.fallback.selected}` : "",
      when(one.updated_at_ms), one.size_bytes.toLocaleString()]) },
  models: { title: "Models", head: ["What", "Of", "Model", "Why", "Until"],
    rows: async () => { const found = await ask("/api/models"); return [
      ...found.cooldowns.filter((one) => one.left_s > 0).map((one) => ["left alone", `${one.provider} ${one.label}`, one.model || "every model",
        `${one.reason}, ${one.errors} errors`, `${Math.ceil(one.left_s)} s more`]),
      ...found.pins.map((one) => [`pin (${one.source})`, link(one.session, () => why(one.session)), one.model,
        `${one.reason || "no reason given"}, by ${one.by || "nobody"}, ${when(one.set_at_ms)}${one.fault ? `. ${one.fault}` : ""}`, when(one.expires_at_ms) || "taken away by hand"]),
      ...found.fallbacks.map((one) => ["answered by another", link(one.session, () => why(one.session)), `${one.active} in place of ${one.selected}`,
        one.reason, `since ${when(one.since_ms)}`])]; } },
  outbox: { title: "Outbox", head: ["Delivery", "To", "State", "Tries", "Changed", "What", ""],
    rows: async () => (await ask("/api/outbox?limit=500")).deliveries.map((one) => [link(one.id.slice(0, 12), () => why(one.input_id)),
      one.route, one.state, one.attempts, when(one.updated_at_ms), [one.detail, one.label, one.body.slice(0, 160)].filter(Boolean).join(" · "),
      [one.state === "failed" && button("Retry", () => order(one.id, "retry")),
       ["pending", "failed", "unknown"].includes(one.state) && button("Drop", () => order(one.id, "drop"))].filter(Boolean)]) },
  timers: { title: "Timers", head: ["Timer", "State", "Next", "Last runs"],
    rows: async () => (await ask("/api/timers")).timers.map((one) => [one.id, one.detail ? `${one.state} (${one.detail})` : one.state, when(one.next_at_ms),
      one.runs.map((run) => `${when(run.scheduled_at_ms)} ${run.state}${run.detail ? ` (${run.detail})` : ""}`).join("; ")]) },
  incidents: { title: "Incidents of the last week", head: ["When", "What", "Session", "What happened", "Where"], kinds: true,
    rows: async () => (await ask("/api/incidents?limit=1000")).incidents.map((one) => {
      const kind = element("span", KINDS[one.kind] ?? one.kind);
      kind.className = `kind ${one.kind}`;
      return [when(one.at_ms), kind, one.session ? link(one.session, () => conversation(one.session)) : "",
        [link("why", () => why(one.why)), ` ${one.text}`], one.evidence];
    }) },
  approvals: { title: "Approvals", head: ["Asked", "Session", "Tool", "What", "State", ""],
    rows: async () => (await ask("/api/approvals?pending=0&limit=200")).approvals.map((one) => [when(one.asked_at_ms),
      link(one.session, () => why(one.session)), one.tool, `${one.shown} (${one.why})`, one.state,
      one.state === "pending" ? [button("Allow once", () => decide(one.id, "approve", "once")), button("Allow here", () => decide(one.id, "approve", "session")),
        button("Deny", () => decide(one.id, "deny", "once"))] : []]) },
};

async function order(id, what) { await ask(`/api/outbox/${id}/${what}`, {}); await lookAtList(); }
async function decide(id, answer, scope) { await ask(`/api/approvals/${id}`, { answer, scope }); await lookAtList(); }

const view = () => { const name = location.hash.slice(1); return LISTS[name] ? name : "turns"; };
let rows = [], kind = null;

async function lookAtList() {
  const name = view();
  if (name === "turns") return;
  const found = await LISTS[name].rows();
  if (name === view()) { rows = found; fill(); }
}

function textOf(cell) { return cell instanceof Node ? cell.textContent : Array.isArray(cell) ? cell.map(textOf).join(" ") : String(cell); }

function fill() {
  const wanted = at("list-filter").value.toLowerCase();
  const hasKinds = Boolean(LISTS[view()]?.kinds), counts = new Map();
  if (hasKinds) for (const row of rows) counts.set(textOf(row[1]), (counts.get(textOf(row[1])) ?? 0) + 1);
  if (!counts.has(kind)) kind = null;
  fillKinds(counts);
  const matching = rows.filter((row) => (kind === null || textOf(row[1]) === kind) &&
    row.some((cell) => textOf(cell).toLowerCase().includes(wanted)));
  const body = matching.slice(0, ROWS_MAX).map((row) => {
    const line = document.createElement("tr");
    line.role = "row";  // said, since narrow pages show rows as blocks
    for (const [index, cell] of row.entries()) {
      const node = document.createElement("td");
      node.role = "cell";
      node.dataset.label = LISTS[view()]?.head[index] ?? "";
      node.append(...(Array.isArray(cell) ? cell : [cell instanceof Node ? cell : String(cell)]));
      line.append(node);
    }
    return line;
  });
  if (hasKinds && rows.length === 0) body.push(nothing("Nothing went wrong.", LISTS[view()].head.length));
  at("list-more").textContent = `${matching.length} of ${rows.length}${matching.length > ROWS_MAX ? `, the first ${ROWS_MAX} shown: filter` : ""}`;
  const held = focused();
  at("list-body").replaceChildren(...body);
  if (held !== null) [...at("list-body").rows].find((row) => keyOf(row) === held.key)?.querySelectorAll("button")[held.index]?.focus();
}

/** Which button of which row has the focus: lists are made anew while somebody goes through them by keyboard. */
function focused() {
  const row = document.activeElement?.closest("#list-body tr");
  return row ? { key: keyOf(row), index: [...row.querySelectorAll("button")].indexOf(document.activeElement) } : null;
}
const keyOf = (row) => [...row.cells].slice(0, 3).map((cell) => cell.textContent).join("\n");

/** Buttons that count what there is of each kind; one that is pressed shows that alone. */
function fillKinds(counts) {
  const names = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  at("list-kinds").hidden = names.length === 0;
  const shown = [...at("list-kinds").children];
  if (shown.length !== names.length || shown.some((node, index) => node.name !== names[index])) {
    at("list-kinds").replaceChildren(...names.map((name) => {
      const node = button("", async () => { kind = kind === name ? null : name; fill(); });
      node.name = name;
      return node;
    }));
  }
  for (const node of at("list-kinds").children) {
    node.textContent = `${node.name} ${counts.get(node.name)}`;
    node.setAttribute("aria-pressed", String(kind === node.name));
  }
}

function nothing(text, columns) {
  const line = document.createElement("tr"), cell = element("td", text);
  cell.colSpan = columns;
  line.append(cell);
  return line;
}

function turnTo() {
  const name = view();
  for (const one of document.querySelectorAll(".board nav a"))
    one.getAttribute("href") === `#${name}` ? one.setAttribute("aria-current", "page") : one.removeAttribute("aria-current");
  at("turns").hidden = name !== "turns";
  at("list").hidden = name === "turns";
  if (name === "turns") { lanes.draw(); return; }
  at("list-title").textContent = LISTS[name].title;
  const head = document.createElement("tr");
  head.role = "row";
  for (const text of LISTS[name].head) { const cell = element("th", text); cell.scope = "col"; cell.role = "columnheader"; head.append(cell); }
  at("list-head").replaceChildren(head);
  rows = []; at("list-filter").value = ""; fill();
  lookAtList().catch(failed);
}
addEventListener("hashchange", turnTo);
at("list-filter").addEventListener("input", fill);
at("leave").addEventListener("click", async () => {
  await fetch("/logout", { method: "POST", headers: { "x-holdfast-csrf": csrf ?? "" } });
  location.assign("/login?next=/");
});

// ── looking, again and again ──

function failed(error) { failures += 1; at("state").className = "state off"; at("state").textContent = error.message; }

async function look() {
  try {
    await Promise.all([view() === "turns" ? lookAtTurns() : null, lookAtAll()]);
    failures = 0; at("state").className = "state on"; at("state").textContent = "live";
  } catch (error) { failed(error); }
  setTimeout(look, document.hidden ? QUIET_MS : Math.min(30e3, paceMs * 2 ** failures));
}

function animate() { if (lanes.live && view() === "turns" && !document.hidden) lanes.draw(); setTimeout(animate, 250); }

csrf = (await ask("/api/login")).csrf;
turnTo(); look(); animate();
setInterval(() => { if (!document.hidden && view() !== "turns" && !at("detail").open) lookAtList().catch(failed); }, QUIET_MS);
