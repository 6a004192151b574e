// The real OpenClaw at work on one transcript: its own functions append, its own controller judges. Told what to do by its
// arguments (package folder, act, transcript, seconds); says one JSON object per event, and goes on at each line it reads.
// Its name makes it an OpenClaw by the rule of its lock files.
import fs from "node:fs";
import { registerHooks } from "node:module";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, act, transcript, seconds] = process.argv.slice(2);
const dist = path.join(folder, "dist");
const NAME = "createEmbeddedAttemptSessionLockController";
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (event) => fs.writeSync(1, `${JSON.stringify(event)}\n`);
const told = async () => (await lines.next()).value;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// The controller is used inside one bundle only: the bundle runs as it is, with one more name to import it by.
registerHooks({
  load(url, context, next) {
    const found = next(url, context);
    if (!/\/dist\/selection-[^/]*\.js$/.test(url)) return found;
    const text = found.source.toString();
    return text.includes(`function ${NAME}(`)
      ? { ...found, source: `${text}\nexport { ${NAME} as theController };\n` }
      : found;
  },
});
const load = (name) => import(pathToFileURL(path.join(dist, name)).href);

function said(role, text) {
  const content = [{ type: "text", text }];
  const timestamp = Date.now();
  if (role === "user") return { role, content, timestamp };
  const cost = { input: 0, output: 0, cacheRead: 0, cacheWrite: 0, total: 0 };
  const usage = { input: 0, output: 0, cacheRead: 0, cacheWrite: 0, totalTokens: 0, cost };
  return { role: "assistant", content, api: "openai-responses", provider: "openclaw", model: "delivery-mirror", usage,
    stopReason: "stop", timestamp };
}

// Append mirrors, and each `userEvery` lines a user's message, as its gateway does, for so long.
async function appendMany() {
  const { appendSessionTranscriptMessage } = await load("plugin-sdk/agent-harness-runtime.js");
  const userEvery = 40;
  say({ event: "ready", pid: process.pid });
  await told();
  const ends = Date.now() + Number(seconds) * 1000;
  for (let n = 1; Date.now() < ends; n += 1) {
    const role = n % userEvery === 0 ? "user" : "assistant";
    const text = `openclaw ${n} ${"x".repeat((n * 37) % 900)}`;
    const done = await appendSessionTranscriptMessage({ transcriptPath: transcript, message: said(role, text) });
    say({ event: "wrote", id: done.messageId, role });
    await sleep(5);
  }
  say({ event: "done" });
}

// Open a prompt window again and again; each time it is told that something was written, take the lock and append.
async function controlled() {
  const { acquireSessionWriteLock, appendSessionTranscriptMessage } = await load("plugin-sdk/agent-harness-runtime.js");
  const bundle = fs.readdirSync(dist).find(
    (name) => /^selection-.*\.js$/.test(name) && fs.readFileSync(path.join(dist, name), "utf8").includes(`function ${NAME}(`),
  );
  const { theController } = await load(bundle);
  const begin = () => theController({
    acquireSessionWriteLock,
    lockOptions: { sessionFile: transcript, timeoutMs: 20_000, staleMs: 1_800_000, maxHoldMs: 300_000 },
  });
  let controller = await begin();
  await controller.releaseForPrompt();
  say({ event: "ready", pid: process.pid });
  for (let order = await told(); order !== undefined && order !== "end"; order = await told()) {
    try {
      const done = await controller.withSessionWriteLock(() =>
        appendSessionTranscriptMessage({ transcriptPath: transcript, message: said("assistant", order) }), { publishOwnedWrite: true });
      say({ event: "goes on", id: done.messageId });
    } catch (error) {
      say({ event: "stopped", name: error.name, message: error.message });
      controller = await begin();
      await controller.releaseForPrompt();
    }
  }
  say({ event: "done" });
}

// Open the transcript with its session manager, as each of its attempts does, and tell what it sees.
async function read() {
  const at = path.join(folder, "..", "@earendil-works", "pi-coding-agent", "dist", "index.js");
  const { SessionManager } = await import(pathToFileURL(at).href);
  const manager = SessionManager.open(transcript);
  say({ event: "read", entries: manager.getEntries().length, messages: manager.buildSessionContext().messages.length });
}

await { append: appendMany, controlled, read }[act]();
process.exit(0);
