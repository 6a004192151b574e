"""The main job on real input, with processes dying under it: many clients, one conversation.

    python tests/torture/heart.py run [--messages 200] [--kill-s 0] [--stop-s 0] [--model demo/demo]

Seven processes extend `agent:main:main` at once: four real OpenAI clients that stream, two that call `holdfast send`,
one plain script that uses the library. With `--kill-s N` one of them, or the gateway, is killed (SIGKILL) every second
for N seconds and started again; with `--stop-s N` one is stopped (SIGSTOP) for N seconds. Then every promise is checked
on what is on disk. Prints one JSON object; exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import holdfast
from holdfast.session.lines import Line

SESSION = "agent:main:main"
GIVE_UP_S = 600.0


# ── the seven ────────────────────────────────────────────────────────────────────────────────────────────────────────


def openai_client(state: Path, port: int, name: str, count: int, model: str) -> None:
    """Streams one message after the other. What had no whole answer is asked again under the same key."""
    import openai

    client = openai.OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key=(state / "token").read_text().strip(), timeout=120
    )
    for number in _undone(state, name, count):
        text = f"{name} message {number}."
        while True:
            try:
                said, finished = "", None
                stream = client.chat.completions.create(
                    model=model,
                    stream=True,
                    messages=[{"role": "user", "content": text}],
                    extra_headers={"X-Holdfast-Session": SESSION, "Idempotency-Key": f"{name}-{number}"},
                )
                for chunk in stream:
                    if chunk.choices:
                        said += chunk.choices[0].delta.content or ""
                        finished = chunk.choices[0].finish_reason or finished
                if finished == "stop":
                    _done(state, name, number, said)
                    break
            except openai.OpenAIError:
                time.sleep(0.2)


def sender(state: Path, name: str, count: int, model: str) -> None:
    """Calls `holdfast send`, which finds the gateway, or runs the turn itself where there is none."""
    for number in _undone(state, name, count):
        while True:
            send = [
                sys.executable,
                "-m",
                "holdfast",
                "--state",
                str(state),
                "send",
                SESSION,
                f"{name} message {number}.",
            ]
            how = ["--key", f"{name}-{number}", "--model", model, "--json"]
            sent = subprocess.run([*send, *how], capture_output=True, text=True, check=False)
            if sent.returncode == 0:
                _done(state, name, number, json.loads(sent.stdout)["answer"])
                break
            time.sleep(0.2)


async def library(state: Path, name: str, count: int) -> None:
    """Accepts and answers its own messages. Whatever became of one before a kill, the key makes it one."""
    for number in _undone(state, name, count):
        text = f"{name} message {number}."
        async with holdfast.open(state) as hf:
            event = holdfast.InboundEvent(
                SESSION, {"content": text}, source="script", key=f"{name}-{number}", waits=True
            )
            admission = await hf.accept(event)
            assert not isinstance(admission, holdfast.LaneFull)
            view = await hf.input(admission.input_id)
            while not view.settled:
                try:
                    async with hf.turn(SESSION, wait_s=5, input_id=view.id) as turn:
                        await turn.append_input([{"role": "user", "content": [{"type": "text", "text": text}]}])
                        async with turn.prompt_window() as window:
                            await asyncio.sleep(0.05)
                            answer = f"echo from the script: {text}"
                            window.finished(answer)
                        await turn.append(holdfast.assistant(answer, model="script/echo"))
                except holdfast.CoordinationError:
                    pass
                view = await hf.wait_input(view.id, timeout_s=0.2)
            _done(state, name, number, view.answer or "")


def _undone(state: Path, name: str, count: int) -> list[int]:
    done = {json.loads(line)["number"] for line in _lines(state / f"done-{name}")}
    return [number for number in range(count) if number not in done]


def _done(state: Path, name: str, number: int, answer: str) -> None:
    with (state / f"done-{name}").open("a") as file:
        file.write(json.dumps({"number": number, "answer": answer}) + "\n")


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().split("\n") if line.endswith("}")] if path.exists() else []


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Run:
    def __init__(self, state: Path, messages: int, model: str) -> None:
        self.state = state
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        share = messages * 3 // 20
        rest = (messages - 5 * share) // 2
        self.plan = {f"client{i}": ("client", share) for i in range(4)}
        self.plan |= {"sender0": ("sender", rest), "sender1": ("sender", messages - 5 * share - rest)}
        self.plan |= {"script": ("library", share)}
        self.model = model
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kills: collections.Counter[str] = collections.Counter()

    def start(self, name: str) -> None:
        if name == "gateway":
            command = [sys.executable, "-m", "holdfast", "--state", str(self.state), "up", "--port", str(self.port)]
        else:
            kind, count = self.plan[name]
            command = [
                sys.executable,
                __file__,
                "work",
                kind,
                str(self.state),
                str(self.port),
                name,
                str(count),
                self.model,
            ]
        log = (self.state / f"log-{name}").open("ab")
        env = {**os.environ, "HOLDFAST_GATEWAY_UNCLEAN_BOOTS_MAX": "0"}  # killing gateways is what this is for
        self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=env)

    def wait_ready(self) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise SystemExit((self.state / "log-gateway").read_text())

    def kill(self, name: str) -> None:
        """The whole group: for a sender that includes the command it runs."""
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()
        self.kills[name.rstrip("0123456789")] += 1

    def undone(self) -> list[str]:
        return [name for name, (_, count) in self.plan.items() if _undone(self.state, name, count)]

    def keep_going(self) -> None:
        for name in ["gateway", *self.undone()]:
            if name not in self.processes or self.processes[name].poll() is not None:
                self.start(name)

    def run(self, kill_s: float, stop_s: float, seed: int) -> float:
        chance = random.Random(seed)
        began = time.monotonic()
        self.start("gateway")
        self.wait_ready()
        self.keep_going()
        stopped_until = 0.0
        stopped = chance.choice(list(self.plan))
        if stop_s:
            time.sleep(1.0)
            os.killpg(self.processes[stopped].pid, signal.SIGSTOP)
            stopped_until = time.monotonic() + stop_s
        next_kill = time.monotonic() + 1.0
        while self.undone() or time.monotonic() - began < kill_s:
            if time.monotonic() - began > GIVE_UP_S:
                break
            if stopped_until and time.monotonic() >= stopped_until:
                os.killpg(self.processes[stopped].pid, signal.SIGCONT)
                stopped_until = 0.0
            if time.monotonic() - began < kill_s and time.monotonic() >= next_kill:
                next_kill += 1.0
                alive = [n for n, p in self.processes.items() if p.poll() is None]
                self.kill(chance.choice(alive))
            self.keep_going()
            time.sleep(0.05)
        lasted = time.monotonic() - began
        for name, process in self.processes.items():
            if name != "gateway" and process.poll() is None:
                process.wait(timeout=30)
        self.processes["gateway"].send_signal(signal.SIGTERM)
        self.processes["gateway"].wait(timeout=60)
        return lasted


# ── the check ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def check(run: Run) -> dict[str, object]:
    """Every promise that can be read off the disk."""
    faults: list[str] = []
    wanted = {f"{name} message {number}." for name, (_, count) in run.plan.items() for number in range(count)}
    async with holdfast.open(run.state) as hf:
        lines = await hf.session(SESSION).lines()
        inputs = await hf.inputs(session=SESSION, limit=100_000)
    faults += [
        f"line {i} is {line.kind}: {line.reason}"
        for i, line in enumerate(lines)
        if line.kind not in ("header", "entry")
    ]
    entries = [line for line in lines if line.kind == "entry"]
    ids = [line.id for line in entries]
    faults += [f"id {id} stands {n} times" for id, n in collections.Counter(ids).items() if n > 1]
    if sum(line.kind == "header" for line in lines) != 1:
        faults.append("not exactly one header")
    for before, line in zip([None, *entries], entries, strict=False):
        if line.parent != (before.id if before is not None else None):
            faults.append(f"line {line.id} hangs off {line.parent}, not off the line before it")
    epochs = [line.origin.epoch for line in entries if line.origin is not None and line.origin.turn]
    if epochs != sorted(epochs):
        faults.append("epochs go down")
    asked = collections.Counter(_text(line) for line in entries if line.message_role == "user")
    faults += [f"asked {n} times: {text}" for text, n in asked.items() if n != 1]
    faults += [f"never asked: {text}" for text in wanted - set(asked)]
    finals = [line for line in entries if line.origin is not None and line.origin.final]
    by_input = collections.Counter(i for line in finals if line.origin is not None for i in line.origin.inputs)
    faults += [f"answered {n} times: {input_id}" for input_id, n in by_input.items() if n != 1]
    for view in inputs:
        text = _said(view.payload)
        if view.state != "answered":
            faults.append(f"{view.id} ({text}) is {view.state}: {view.detail}")
        elif text not in (view.answer or ""):
            faults.append(f"{view.id}: asked {text!r}, answered {view.answer!r}")
    if len(inputs) != len(wanted):
        faults.append(f"{len(inputs)} inputs for {len(wanted)} messages")
    for name, (_, count) in run.plan.items():
        told = [json.loads(line) for line in _lines(run.state / f"done-{name}")]
        faults += [
            f"{name} {t['number']} was told {t['answer']!r}"
            for t in told
            if f"{name} message {t['number']}." not in t["answer"]
        ]
        if {t["number"] for t in told} != set(range(count)):
            faults.append(f"{name} has not heard every answer")
    return {
        "messages": len(wanted),
        "answers": sum(view.state == "answered" for view in inputs),
        "lines": len(entries),
        "attempts_max": max((view.attempts for view in inputs), default=0),
        "rerun": sum(view.attempts > 1 for view in inputs),
        "kills": dict(run.kills),
        "faults": faults[:20],
        "faults_total": len(faults),
    }


def _text(line: Line) -> str:
    content = line.value()["message"]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _said(payload: dict[str, Any]) -> str:
    content = payload["content"] if "content" in payload else payload["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def main() -> int:
    if sys.argv[1:2] == ["work"]:
        kind, state, port, name, count, model = sys.argv[2:]
        if kind == "client":
            openai_client(Path(state), int(port), name, int(count), model)
        elif kind == "sender":
            sender(Path(state), name, int(count), model)
        else:
            asyncio.run(library(Path(state), name, int(count)))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("command", choices=["run"])
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--kill-s", type=float, default=0.0)
    parser.add_argument("--stop-s", type=float, default=0.0)
    parser.add_argument("--model", default="demo/demo")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true", help="leave the state directory behind")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="holdfast-heart-")
    run = Run(Path(folder), options.messages, options.model)
    seconds = run.run(options.kill_s, options.stop_s, options.seed)
    found = asyncio.run(check(run))
    shown = {"run": vars(options), "seconds": round(seconds, 1), **found}
    print(json.dumps(shown, indent=2))
    if options.keep or found["faults_total"]:
        print(f"state kept in {folder}", file=sys.stderr)
    else:
        subprocess.run(["rm", "-rf", folder], check=True)
    return 1 if found["faults_total"] else 0


if __name__ == "__main__":
    sys.exit(main())
