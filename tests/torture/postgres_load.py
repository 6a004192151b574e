"""Many inputs over many sessions on a few real gateways of one database, while nodes, database and network fail.

    python tests/torture/postgres_load.py [--nodes 2] [--inputs 1000] [--sessions 100] [--fault-s 5] [--cut-s 30]

Each gateway is a process behind a forwarding proxy of its own. Who sends tries each message at one node after the
other, with one key, until somebody has it. Meanwhile, in turn and every `--fault-s` seconds: SIGKILL of a node, SIGSTOP
for twice the beat's term, an immediate restart of the database, and the network of a node cut both ways, one way,
slowed down. At the end every promise is asked of the database and of what has arrived. Prints one JSON object; exit
code 1 if one is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import random
import secrets
import signal
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

from holdfast.session.lines import Line, read_line
from holdfast.testing.proxy import LOOPBACK, TcpProxy

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.conformance import postgres_server  # noqa: E402  # found by the line above
from tests.conformance.postgres_server import OwnServer  # noqa: E402

NODE = Path(__file__).with_name("postgres_node.py")
TERM_S = 6.0
CONFIG = f"""
[turn]
beat_s = 1.0
beat_term_s = {TERM_S}
[gateway]
unclean_boots_max = 0
[models]
default = "demo/fast"
[lanes.widths]
main = 16
"""
STILL_S = 180.0
"""What makes no progress for so long has come to a stop: limits are of progress, since a busy machine is no fault."""
FAULTS = ("kill", "cut", "stop", "cut to server", "crash", "cut to client", "slow")


@dataclass(slots=True)
class Progress:
    """Whether something has been the same for `STILL_S`."""

    seen: object = None
    since: float = 0.0

    def stands_still(self, now: object) -> bool:
        if now != self.seen or not self.since:
            self.seen, self.since = now, time.monotonic()
        return time.monotonic() - self.since >= STILL_S


def cpu_ticks_of(pid: int) -> int | None:
    """None: it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[11]) + int(fields[12])


@dataclass(slots=True)
class Node:
    """A gateway process, which is started again when it was killed."""

    name: str
    url: str
    folder: Path
    platform: Path
    proxy: TcpProxy
    process: asyncio.subprocess.Process | None = None
    address: str = ""
    starts: int = 0

    async def start(self) -> None:
        config = self.folder / "holdfast.toml"
        config.write_text(CONFIG)
        environ = {
            **os.environ, "HOLDFAST_NODE_DIR": str(self.folder),
            "HOLDFAST_GATEWAY_TOKEN_FILE": str(self.folder.parent / "token"),
        }  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, str(NODE), self.url, str(config), str(self.platform),
                stdout=asyncio.subprocess.PIPE, stderr=log, env=environ,
            )  # fmt: skip
        while line := await self._next_line():
            if b"is ready at" in line:
                self.address = line.decode().split()[4]
                self.starts += 1
                return
        raise RuntimeError(f"{self.name} did not start: {(self.folder / 'log').read_text()[-2000:]}")

    async def _next_line(self) -> bytes:
        """Waits as long as the process works; empty: it has ended, or stands still."""
        assert self.process is not None
        assert self.process.stdout is not None
        reading = asyncio.ensure_future(self.process.stdout.readline())
        progress = Progress()
        while not reading.done() and not progress.stands_still(cpu_ticks_of(self.process.pid)):
            await asyncio.wait({reading}, timeout=1.0)
        if not reading.done():
            reading.cancel()
            return b""
        return reading.result()

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@dataclass(slots=True)
class Seen:
    """What happened on the way."""

    faults: collections.Counter[str] = field(default_factory=collections.Counter[str])
    refusals: collections.Counter[str] = field(default_factory=collections.Counter[str])
    epochs: dict[str, int] = field(default_factory=dict[str, int])
    epochs_down: list[str] = field(default_factory=list[str])
    looks: int = 0
    loads: list[float] = field(default_factory=list[float])


async def send_all(nodes: list[Node], token: str, inputs: int, sessions: int, seen: Seen, seed: int) -> dict[str, str]:
    """Input ids by key, once somebody has accepted each."""
    accepted: dict[str, str] = {}
    numbers = iter(range(inputs))
    rng = random.Random(seed)

    async def sender(http: httpx.AsyncClient) -> None:
        for number in numbers:
            session = f"agent:main:s{number % sessions}"
            body = {"text": f"message {number}", "route": f"file:{session}"}
            headers = {"authorization": f"Bearer {token}", "idempotency-key": f"k{number}"}
            while f"k{number}" not in accepted:
                node = rng.choice(nodes)
                try:
                    path = f"{node.address}/api/sessions/{session}/messages"
                    response = await http.post(path, json=body, headers=headers)
                except httpx.HTTPError as exc:
                    seen.refusals[type(exc).__name__] += 1
                    await asyncio.sleep(0.2)
                    continue
                if response.status_code in (200, 202):
                    accepted[f"k{number}"] = response.json()["id"]
                else:
                    seen.refusals[str(response.status_code)] += 1
                    await asyncio.sleep(0.2)

    async with httpx.AsyncClient(timeout=30.0) as http:
        await asyncio.gather(*(sender(http) for _ in range(16)))
    return accepted


async def make_trouble(
    nodes: list[Node], server: OwnServer, seen: Seen, every_s: float, cut_s: float, seed: int
) -> None:
    """One fault after the other until cancelled; each is over before the next begins."""
    rng = random.Random(seed)
    number = 0
    while True:
        await asyncio.sleep(every_s)
        fault, node = FAULTS[number % len(FAULTS)], rng.choice(nodes)
        number += 1
        assert node.process is not None
        if fault == "kill":
            await node.end()
            await node.start()
        elif fault == "stop":
            node.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2 * TERM_S)
            node.process.send_signal(signal.SIGCONT)
        elif fault == "crash":
            await asyncio.to_thread(server.crash)
        else:
            if fault == "slow":
                node.proxy.slow(0.2)
            else:
                node.proxy.cut(to_server=fault != "cut to client", to_client=fault != "cut to server")
            await asyncio.sleep(cut_s)
            node.proxy.heal()
        seen.faults[fault] += 1


async def watch_epochs(url: str, seen: Seen) -> None:
    """No epoch ever goes down: looked at twice a second, until cancelled."""

    def look() -> list[tuple[str, int]]:
        with psycopg.connect(url, connect_timeout=5) as conn:
            return [(row[0], row[1]) for row in conn.execute("select id, epoch_number from holdfast.transcripts")]

    while True:
        try:
            for transcript, number in await asyncio.to_thread(look):
                if number < seen.epochs.get(transcript, 0):
                    seen.epochs_down.append(f"{transcript}: {seen.epochs[transcript]} to {number}")
                seen.epochs[transcript] = number
            seen.looks += 1
            seen.loads.append(os.getloadavg()[0])
        except psycopg.Error:
            pass  # the database restarts
        await asyncio.sleep(0.5)


def open_work(url: str) -> tuple[int, int, int]:
    """Inputs that have not ended, deliveries that are not at their end, and how often anything was tried so far."""
    with psycopg.connect(url) as conn:
        inputs = conn.execute("select count(*) from holdfast.inputs where state in ('queued', 'running')").fetchone()
        unsent = "select count(*) from holdfast.outbox where state not in ('sent', 'failed', 'dropped')"
        outbox = conn.execute(unsent).fetchone()
        tried = conn.execute(
            "select (select sum(attempts) from holdfast.inputs)+"
            "(select coalesce(sum(attempts), 0) from holdfast.outbox)"
        ).fetchone()
    assert inputs is not None
    assert outbox is not None
    assert tried is not None
    return inputs[0], outbox[0], tried[0]


# ── what must be true ────────────────────────────────────────────────────────────────────────────────────────────────


def check(url: str, platform: Path, accepted: dict[str, str], seen: Seen) -> tuple[dict[str, Any], list[str]]:
    """Counts, and what is broken, in words."""
    with psycopg.connect(url) as conn:
        states = dict(conn.execute("select id, state from holdfast.inputs").fetchall())
        sessions = dict(conn.execute("select id, transcript from holdfast.inputs").fetchall())
        answers = {
            row[0]: json.loads(bytes(row[1])) for row in conn.execute("select id, result from holdfast.inputs")
            if row[1] is not None
        }  # fmt: skip
        outbox = {row[0]: row for row in conn.execute("select id, input, body, state from holdfast.outbox")}
        turns = conn.execute("select outcome, count(*) from holdfast.turns group by 1 order by 1").fetchall()
        lines = {
            transcript: [
                read_line(bytes(row[0]).removesuffix(b"\n"))
                for row in conn.execute("select raw from holdfast.lines where transcript=%s order by seq", (body,))
            ]
            for transcript, body in conn.execute("select id, body from holdfast.transcripts").fetchall()
        }
    arrived = [json.loads(line) for line in platform.read_bytes().splitlines()] if platform.exists() else []
    broken = [*seen.epochs_down, *_inputs_broken(states, accepted)]
    broken += _copies_broken(arrived, outbox)
    broken += _transcripts_broken(lines, states, sessions, answers, outbox)
    counts = {
        "inputs": dict(collections.Counter(states.values())), "turns": {str(how): count for how, count in turns},
        "arrived": len(arrived), "labelled": sum(one["label"] is not None for one in arrived),
        "deliveries": dict(collections.Counter(row[3] for row in outbox.values())),
        "lines": sum(map(len, lines.values())), "highest_epoch": max(seen.epochs.values(), default=0),
        "looks_at_epochs": seen.looks,
    }  # fmt: skip
    return counts, broken


def _inputs_broken(states: dict[str, str], accepted: dict[str, str]) -> list[str]:
    terminal = {"answered", "steered", "merged", "superseded", "skipped", "cancelled", "failed"}
    broken = [f"input {one} has no end: {states.get(one)}"
              for one in accepted.values() if states.get(one) not in terminal]  # fmt: skip
    if len(set(accepted.values())) != len(accepted):
        broken.append("two keys were given one input")
    broken += [f"input {one} was stored and nobody sent it" for one in states.keys() - set(accepted.values())]
    return broken


def _copies_broken(arrived: list[dict[str, Any]], outbox: dict[str, Any]) -> list[str]:
    plain = collections.Counter(one["id"] for one in arrived if one["label"] is None)
    broken = [f"delivery {one} arrived {count} times without a label" for one, count in plain.items() if count > 1]
    broken += [f"delivery {one['id']} arrived and is not in the outbox" for one in arrived if one["id"] not in outbox]
    there = {one["id"] for one in arrived}
    broken += [f"delivery {one} is called sent and never arrived" for one, row in outbox.items()
               if row[3] == "sent" and one not in there]  # fmt: skip
    broken += [f"delivery {one['id']} arrived as another text" for one in arrived
               if one["id"] in outbox and outbox[one["id"]][2] not in one["text"]]  # fmt: skip
    return broken


def _transcripts_broken(
    lines: dict[str, list[Line]], states: dict[str, str], sessions: dict[str, str], answers: dict[str, Any],
    outbox: dict[str, Any],
) -> list[str]:  # fmt: skip
    """Each answered input has one final line, and what was delivered for it is what stands there."""
    broken: list[str] = []
    finals: dict[str, list[str]] = collections.defaultdict(list)
    for transcript, each in lines.items():
        known: set[str | None] = {None}
        for line in each:
            if line.kind != "entry":
                continue
            if line.parent not in known:
                broken.append(f"transcript {transcript}: line {line.id} hangs off a line that is not there")
            if line.id in known:
                broken.append(f"transcript {transcript}: line {line.id} stands there twice")
            known.add(line.id)
            if line.origin is not None and line.origin.final:
                for one in line.origin.inputs:
                    finals[one].append(_text_of(line))
                    if sessions.get(one) != transcript:
                        broken.append(f"input {one} was answered in another conversation")
    bodies: dict[str, list[str]] = collections.defaultdict(list)
    for _, one, body, _ in outbox.values():
        if not body.startswith("("):  # notices, such as that somebody still waits
            bodies[one].append(body)
    for one, state in states.items():
        if state == "answered":
            if len(finals[one]) != 1:
                broken.append(f"input {one} has {len(finals[one])} final lines")
            elif bodies[one] != finals[one]:
                broken.append(f"input {one}: delivered {bodies[one]!r}, written {finals[one]!r}")
            elif one not in answers:
                broken.append(f"input {one} is called answered and has no answer")
    return broken


def _text_of(line: Line) -> str:
    content = line.value()["message"]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def run(args: argparse.Namespace, server: OwnServer, folder: Path) -> int:
    began = time.monotonic()
    seen, token = Seen(), secrets.token_urlsafe(16)
    fd = os.open(folder / "token", os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(fd, token.encode())
    os.close(fd)
    with postgres_server.database(server.url) as url:
        name = url.split("/")[3].split("?")[0]
        async with AsyncExitStack() as stack:
            nodes: list[Node] = []
            for number in range(args.nodes):
                proxy = stack.enter_context(TcpProxy(server.socket, server_patience_s=3.0))
                home = folder / f"node{number}"
                home.mkdir()
                node = Node(f"node{number}", f"postgresql://postgres@{LOOPBACK}:{proxy.port}/{name}", home,
                            folder / "platform", proxy)  # fmt: skip
                stack.push_async_callback(node.end)
                await node.start()
                nodes.append(node)
            watching = asyncio.create_task(watch_epochs(url, seen))
            trouble = asyncio.create_task(
                make_trouble(nodes, server, seen, args.fault_s, args.cut_s, args.seed)
            ) if args.fault_s else None  # fmt: skip
            sending = asyncio.create_task(send_all(nodes, token, args.inputs, args.sessions, seen, args.seed))
            if trouble is not None:
                await asyncio.wait({sending, trouble}, return_when=asyncio.FIRST_COMPLETED)
                if trouble.done():
                    trouble.result()
            accepted = await sending
            accepted_s = time.monotonic() - began
            if trouble is not None:
                while seen.faults.total() < args.faults_min and not trouble.done():  # noqa: ASYNC110  # counted there
                    await asyncio.sleep(0.2)
                trouble.cancel()
                await asyncio.gather(trouble, return_exceptions=True)
            for node in nodes:
                node.proxy.heal()
                if node.process is None or node.process.returncode is not None:
                    await node.start()
                else:
                    node.process.send_signal(signal.SIGCONT)
            left = await until_quiet(url)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            counts, broken = check(url, folder / "platform", accepted, seen)
            if any(left):
                broken.append(
                    f"{left[0]} inputs and {left[1]} deliveries were open, and nothing moved for {STILL_S:g} s"
                )
    told = {
        "nodes": args.nodes, "sessions": args.sessions, "accepted": len(accepted), "accepted_s": round(accepted_s, 1),
        "seconds": round(time.monotonic() - began, 1), "faults": dict(seen.faults), "refused": dict(seen.refusals),
        "load": {"middle": statistics.median(seen.loads), "highest": max(seen.loads)} if seen.loads else {},
        **counts, "broken": broken[:50], "broken_count": len(broken), "seed": args.seed,
    }  # fmt: skip
    print(json.dumps(told, indent=1))
    return 1 if broken else 0


async def until_quiet(url: str) -> tuple[int, int]:
    """What is left once everything has ended, or nothing moves any more."""
    progress = Progress()
    while True:
        left = await asyncio.to_thread(open_work, url)
        if not any(left[:2]) or progress.stands_still(left):
            return left[:2]
        await asyncio.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--fault-s", type=float, default=5.0, help="seconds between faults; 0: none")
    parser.add_argument("--faults-min", type=int, default=0, help="go on until so many faults were had")
    parser.add_argument("--cut-s", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs of nodes")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="holdfast-load-"))
    print(f"logs in {folder}", file=sys.stderr)
    with postgres_server.own() as server:
        return asyncio.run(run(args, server, folder))


if __name__ == "__main__":
    sys.exit(main())
