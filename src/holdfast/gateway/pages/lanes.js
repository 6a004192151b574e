// The swimlanes: a row per session, drawn on one canvas. Ten thousand turns are drawn in a few milliseconds: rows out of
// sight cost nothing, and bars of less than a pixel are widened, not skipped.

const ROW = 22, AXIS = 24;
const MARKS = { takeover: "▼", fallback: "▽", died: "✕", failed: "✕", recovery: "↻", still: "◷", asked: "?", stop: "■" };

const LANES = ["main", "cron", "heartbeat", "hook", "subagent", "cron-nested", "compaction"];

/** Which of the eight lane colours a lane has: the usual lanes their own, others one by their name. */
export function laneColour(lane) {
  const known = LANES.indexOf(lane);
  return known >= 0 ? known : 7;
}

export class Lanes {
  constructor(box, canvas, tall, told) {
    Object.assign(this, { box, canvas, tall, told, turns: new Map(), rows: [], spanMs: 10 * 60e3, untilMs: 0, live: true,
      skewMs: 0, filter: "", chosen: null });
    this.context = canvas.getContext("2d");
    new ResizeObserver(() => this.draw()).observe(box);
    box.addEventListener("scroll", () => this.draw());
    box.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    box.addEventListener("pointerdown", (event) => this.#drag(event));
    box.addEventListener("keydown", (event) => this.#key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  now() { return Date.now() + this.skewMs; }

  /** Take in what the gateway tells, and when it told it. */
  update(turns, nowMs) {
    this.skewMs = nowMs - Date.now();
    if (this.turns.size === 0 && turns.length > 0) {  // at first as much as there is, up to the usual
      this.spanMs = Math.min(this.spanMs, Math.max(30e3, (nowMs - turns[0].from_ms) * 1.1));
    }
    for (const turn of turns) this.turns.set(turn.id, turn);
    if (this.turns.size > 12000) {
      const oldest = [...this.turns.values()].sort((a, b) => a.from_ms - b.from_ms).slice(0, this.turns.size - 10000);
      for (const turn of oldest) this.turns.delete(turn.id);
    }
    const rows = new Map();
    for (const turn of this.turns.values()) {
      let row = rows.get(turn.session);
      if (row === undefined) rows.set(turn.session, row = { session: turn.session, turns: [], last: 0 });
      row.turns.push(turn);
      row.last = Math.max(row.last, turn.until_ms ?? Infinity);
    }
    for (const row of rows.values()) row.turns.sort((a, b) => a.from_ms - b.from_ms);
    this.all = [...rows.values()].sort((a, b) => b.last - a.last || (a.session < b.session ? -1 : 1));
    this.#choose();
  }

  find(text) { this.filter = text.toLowerCase(); this.box.scrollTop = 0; this.#choose(); }

  #choose() {
    this.rows = (this.all ?? []).filter((row) => row.session.toLowerCase().includes(this.filter));
    this.tall.style.height = `${Math.max(0, this.rows.length * ROW + AXIS - this.box.clientHeight)}px`;
    this.draw();
  }

  zoom(factor, atMs) {
    const before = this.untilMs;
    this.spanMs = Math.min(30 * 86400e3, Math.max(2000, this.spanMs * factor));
    if (!this.live && atMs !== undefined) this.untilMs = atMs + (before - atMs) * factor;
    this.draw();
  }

  follow(live) { this.live = live; this.draw(); }

  #names() { return this.box.clientWidth < 500 ? 110 : 250; }
  #x(ms) { return this.#names() + (ms - this.untilMs + this.spanMs) / this.spanMs * (this.box.clientWidth - this.#names()); }
  #ms(x) { return this.untilMs - this.spanMs + (x - this.#names()) / (this.box.clientWidth - this.#names()) * this.spanMs; }

  draw() {
    if (this.waits) return;
    this.waits = true;
    requestAnimationFrame(() => { this.waits = false; this.#draw(); });
  }

  #draw() {
    const { box, canvas, context: c } = this, ratio = devicePixelRatio || 1;
    const width = box.clientWidth, height = box.clientHeight;
    if (width === 0) return;
    if (this.live) this.untilMs = this.now() + this.spanMs * 0.02;
    if (canvas.width !== width * ratio || canvas.height !== height * ratio) {
      canvas.width = width * ratio; canvas.height = height * ratio;
      canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
      this.tall.style.height = `${Math.max(0, this.rows.length * ROW + AXIS - height)}px`;
    }
    const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const colours = Object.fromEntries(["waiting", "owning", "model", "tool", "sending", "fault", "text", "quiet", "line",
      "card", "row", "accent", ...[0, 1, 2, 3, 4, 5, 6, 7].map((index) => `lane${index}`)].map((name) => [name, colour(name)]));
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.fillStyle = colours.card; c.fillRect(0, 0, width, height);
    c.font = "12px system-ui, sans-serif"; c.textBaseline = "middle";
    const top = box.scrollTop, first = Math.max(0, Math.floor(top / ROW));
    const last = Math.min(this.rows.length, first + Math.ceil((height - AXIS) / ROW) + 1);
    const names = this.#names(), now = this.now(), from = this.untilMs - this.spanMs;
    this.hits = [];
    c.save(); c.beginPath(); c.rect(0, AXIS, width, height - AXIS); c.clip();
    for (let index = first; index < last; index++) {
      const y = AXIS + index * ROW - top, row = this.rows[index];
      if (index % 2) { c.fillStyle = colours.row; c.fillRect(0, y, width, ROW); }
      c.save(); c.beginPath(); c.rect(names, y, width - names, ROW); c.clip();
      const bar = (a, b, name, inset) => {
        const x = this.#x(a);
        c.fillStyle = colours[name]; c.fillRect(x, y + inset, Math.max(1.5, this.#x(b) - x), ROW - 2 * inset);
      };
      const seen = [];
      for (const turn of row.turns) {
        const until = turn.until_ms ?? now, begin = Math.min(turn.waited_ms ?? turn.from_ms, turn.from_ms);
        const end = Math.max(until, ...turn.bars.map((bar) => bar.until_ms ?? now));
        if (end < from || begin > this.untilMs) continue;
        seen.push([turn, begin, until, end]);
        if (begin < turn.from_ms) bar(begin, turn.from_ms, "waiting", 8);  // first, since others work meanwhile
      }
      for (const [turn, begin, until, end] of seen) {
        bar(turn.from_ms, until, ["failed", "died", "taken_over"].includes(turn.state) ? "fault" : "owning", 5);
        c.fillStyle = colours[`lane${laneColour(turn.lane)}`];
        c.fillRect(this.#x(turn.from_ms), y + ROW - 4, Math.max(1.5, this.#x(until) - this.#x(turn.from_ms)), 3);
        for (const part of turn.bars) bar(part.from_ms, part.until_ms ?? now, part.kind, part.kind === "sending" ? 8 : 5);
        if (turn.id === this.chosen) {
          c.strokeStyle = colours.text; c.lineWidth = 2;
          c.strokeRect(this.#x(turn.from_ms) - 1, y + 3, Math.max(4, this.#x(until) - this.#x(turn.from_ms) + 2), ROW - 6);
        }
        c.fillStyle = colours.text;
        for (const mark of turn.marks) c.fillText(MARKS[mark.kind] ?? "•", this.#x(mark.at_ms) - 5, y + 7);
        this.hits.push([this.#x(begin), Math.max(this.#x(end), this.#x(begin) + 4), y, turn]);
      }
      c.restore();
      c.fillStyle = colours.text;
      c.save(); c.beginPath(); c.rect(0, y, names - 6, ROW); c.clip();
      c.fillText(row.session.replace(/^agent:/, ""), 8, y + ROW / 2); c.restore();
    }
    c.restore();
    this.#axis(c, colours, width, height, names, now);
  }

  #axis(c, colours, width, height, names, now) {
    c.fillStyle = colours.card; c.fillRect(0, 0, width, AXIS);
    const steps = [1e3, 5e3, 15e3, 60e3, 300e3, 900e3, 3600e3, 6 * 3600e3, 86400e3, 7 * 86400e3];
    const step = steps.find((one) => one / this.spanMs * (width - names) > 90) ?? steps.at(-1);
    c.strokeStyle = colours.line; c.fillStyle = colours.quiet; c.lineWidth = 1;
    for (let at = Math.ceil((this.untilMs - this.spanMs) / step) * step; at < this.untilMs; at += step) {
      const x = Math.round(this.#x(at)) + .5;
      c.beginPath(); c.moveTo(x, AXIS - 4); c.lineTo(x, height); c.globalAlpha = .5; c.stroke(); c.globalAlpha = 1;
      const date = new Date(at);
      c.fillText(step >= 86400e3 ? date.toLocaleDateString() : date.toLocaleTimeString([], step < 60e3 ? {} :
        { hour: "2-digit", minute: "2-digit" }), x + 3, AXIS / 2);
    }
    const x = this.#x(now);
    if (x > names && x < width) { c.fillStyle = colours.accent; c.fillRect(x, AXIS - 4, 1.5, height); }
    if (this.rows.length === 0) {
      c.fillStyle = colours.quiet; c.fillText("No turns yet. Say something: holdfast send agent:main:main hello", 12, AXIS + 16);
    }
  }

  at(x, y) {
    return this.hits?.findLast(([from, until, top]) => x >= from - 3 && x <= until + 3 && y >= top && y < top + ROW)?.[3];
  }

  pick(turn) { this.chosen = turn?.id ?? null; this.told(turn, false); this.draw(); }

  #wheel(event) {
    if (!event.ctrlKey && !event.shiftKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
    event.preventDefault();
    if (event.ctrlKey) { this.zoom(event.deltaY > 0 ? 1.25 : .8, this.#ms(event.offsetX)); return; }
    this.#move((event.deltaX || event.deltaY) / this.box.clientWidth * this.spanMs);
  }

  #move(ms) { this.live = false; this.untilMs += ms; this.moved?.(); this.draw(); }

  #drag(event) {
    const rect = this.box.getBoundingClientRect(), startX = event.clientX, startUntil = this.untilMs;
    let moved = false;
    const move = (to) => {
      if (Math.abs(to.clientX - startX) > 4) moved = true;
      if (moved) { this.live = false; this.moved?.();
        this.untilMs = startUntil - (to.clientX - startX) / (rect.width - this.#names()) * this.spanMs; this.draw(); }
    };
    const up = (to) => {
      removeEventListener("pointermove", move); removeEventListener("pointerup", up);
      const turn = moved ? null : this.at(to.clientX - rect.left, to.clientY - rect.top);
      if (turn) { this.pick(turn); this.told(turn, true); }
    };
    addEventListener("pointermove", move); addEventListener("pointerup", up);
  }

  #key(event) {
    const rows = this.rows, row = rows.findIndex((one) => one.turns.some((turn) => turn.id === this.chosen));
    const turns = rows[row]?.turns ?? [], index = turns.findIndex((turn) => turn.id === this.chosen);
    const nearest = (list, ms) => list.reduce((best, one) =>
      Math.abs(one.from_ms - ms) < Math.abs(best.from_ms - ms) ? one : best, list[0]);
    const to = (turn, at) => {
      if (!turn) return;
      this.pick(turn);
      if (!this.live && (turn.from_ms < this.untilMs - this.spanMs || turn.from_ms > this.untilMs))
        this.untilMs = turn.from_ms + this.spanMs / 2;
      const y = at * ROW;
      if (y < this.box.scrollTop) this.box.scrollTop = y;
      if (y + ROW + AXIS > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = y + ROW + AXIS - this.box.clientHeight;
    };
    const keys = {
      ArrowRight: () => to(turns[index + 1] ?? turns[index] ?? rows[0]?.turns.at(-1), Math.max(row, 0)),
      ArrowLeft: () => to(turns[index - 1] ?? turns[index] ?? rows[0]?.turns.at(-1), Math.max(row, 0)),
      ArrowDown: () => to(row < 0 ? rows[0]?.turns.at(-1) : nearest(rows[row + 1]?.turns ?? [], turns[index].from_ms), row + 1),
      ArrowUp: () => to(nearest(rows[row - 1]?.turns ?? [], turns[index]?.from_ms ?? 0), row - 1),
      Enter: () => index >= 0 && this.told(turns[index], true),
      "+": () => this.zoom(.8), "=": () => this.zoom(.8), "-": () => this.zoom(1.25),
      l: () => { this.live = !this.live; this.moved?.(); this.draw(); },
    };
    const act = keys[event.key];
    if (act && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); act(); }
  }
}
