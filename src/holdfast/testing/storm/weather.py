"""The storm itself: starts processes, kills them, stops and continues them, lets outsiders edit; then calm, then the
judgement. One thread, no state of its own open: its children are forks that begin as clean as started processes.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from holdfast.session.key import file_stem
from holdfast.testing.storm import outsider
from holdfast.testing.storm.notes import Notebook
from holdfast.testing.storm.victims import BEAT_TERM_S, IN_A_WINDOW, Scene, live

WARM = (
    "holdfast.store.embedded.store", "holdfast.cli.send", "holdfast.cli.asking", "holdfast.cli.remote",
    "holdfast.gateway.app", "holdfast.gateway.account", "holdfast.inbound.openai_messages", "holdfast.config",
    "holdfast.config.load", "holdfast.model.demo", "holdfast.model.clients", "concurrent.futures.thread",
    "sqlite3.dbapi2",
)  # fmt: skip
"""Imported once, here; a fork then begins within milliseconds."""
GATEWAY_LIFE_S = 6.0
"""A real gateway takes a second to start and is left alone for so long at least."""
WORKERS_SHARE = 0.25
"""How often workers are killed, against others: who is to take a stopped process's turn has to watch it for a term."""
STOPPED_MAX = 3
"""So many processes stand still at once at most: somebody has to get on."""
CALM_S_MAX, JUDGE_S_MAX = 600.0, 1800.0
"""For what never comes to rest, not for a machine that is slow: how long it took is told (`calm_s`)."""
PLANTED_PART, EDITS_PART = 0.85, 0.4
"""A storm that planted less than this part of its faults proves too little. Not every edit finds a transcript."""
PATIENCE = 2.0
"""On a machine that is too slow for its rates a storm goes on, up to so many times as long."""
FAULTS_MAX = 20
"""After so many processes that ended by themselves there is nothing more to be learnt."""
CAST = {"user": 7, "worker": 3, "sender": 2, "gateway": 1}


@dataclass(frozen=True, slots=True)
class Forecast:
    """How hard it blows: events per second, and the smallest numbers without which the storm proves nothing."""

    seconds: float = 60.0
    kills_per_s: float = 20.0
    stops_per_s: float = 10.0
    edits_per_s: float = 4.0
    cast: dict[str, int] = field(default_factory=lambda: dict(CAST))

    def least(self) -> dict[str, float]:
        """What has to be planted at least, of each kind of fault."""
        rates = {"kills": self.kills_per_s, "stops": self.stops_per_s, "edits": self.edits_per_s * EDITS_PART}
        return {name: max(1.0, rate * self.seconds * PLANTED_PART) for name, rate in rates.items()}


@dataclass(slots=True)
class Counts:
    """What was done to them."""

    kills: int = 0
    stops: int = 0
    long_stops: int = 0
    edits: int = 0
    lives: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Slot:
    """A place in the cast, and who plays it now."""

    name: str
    role: str
    life: int = 0
    pid: int = 0
    born: float = 0.0
    stopped_until: float = 0.0
    process: subprocess.Popen[bytes] | None = None


class Storm:
    """One storm over one fresh state.

    Args:
        root: an empty folder of its own.
        on_progress: told the counts about once a second.
    """

    def __init__(
        self, root: Path, seed: int, forecast: Forecast, on_progress: Callable[[Counts], None] = lambda _: None
    ) -> None:
        self.scene = Scene(root, seed)
        self.counts = Counts()
        self.faults: list[str] = []
        self._forecast = forecast
        self._on_progress = on_progress
        self._rng = random.Random(seed)
        self._slots = [Slot(f"{role}{number}", role) for role, many in forecast.cast.items() for number in range(many)]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]

    def run(self) -> dict[str, Any]:
        """Storm, calm, judgement. Returns what was counted and every promise that broke, in words."""
        prepare(self.scene)
        self._outsider = Notebook(self.scene.notes, "outsider.0")
        try:
            self._blow()
        finally:
            self._end_all()
        calm = self._in_child("calm", CALM_S_MAX)
        judged = self._in_child("judge", JUDGE_S_MAX)
        return {
            "seed": self.scene.seed,
            "counts": asdict(self.counts),
            "calm_s": calm.get("seconds"),
            "seen": judged.get("seen", {}),
            "broken": [*self.faults, *calm.get("broken", []), *judged.get("broken", [])],
            "tried": judged.get("tried", {}),
        }

    # ── blowing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _blow(self) -> None:
        began = time.monotonic()
        end = began + self._forecast.seconds
        for slot in self._slots:
            self._start(slot)
        due = {"kill": began + 0.3, "stop": began + 0.2, "edit": began + 0.5, "tell": began + 1.0}
        act = {"kill": self._kill_one, "stop": self._stop_one, "edit": self._edit_one, "tell": self._tell}
        rate = {
            "kill": self._forecast.kills_per_s, "stop": self._forecast.stops_per_s, "edit": self._forecast.edits_per_s,
            "tell": 1.0,
        }  # fmt: skip
        while len(self.faults) < FAULTS_MAX:
            now = time.monotonic()
            if now >= end and (self._has_planted_enough() or now >= began + PATIENCE * self._forecast.seconds):
                break
            self._reap()
            for slot in self._slots:
                if slot.stopped_until and now >= slot.stopped_until:
                    slot.stopped_until = 0.0
                    os.kill(slot.pid, signal.SIGCONT)
            for name in due:
                while rate[name] and due[name] <= now:  # a slow machine catches up
                    due[name] += 1.0 / rate[name] * (1.0 if name == "tell" else self._rng.uniform(0.5, 1.5))
                    act[name]()
            time.sleep(0.002)
        self.counts.seconds = round(time.monotonic() - began, 1)

    def _has_planted_enough(self) -> bool:
        wanted = self._forecast.least()
        return all(getattr(self.counts, name) >= least for name, least in wanted.items())

    def _tell(self) -> None:
        self._on_progress(self.counts)

    def _start(self, slot: Slot) -> None:
        slot.life += 1
        slot.born = time.monotonic()
        slot.stopped_until = 0.0
        self.counts.lives += 1
        if slot.role == "gateway":
            slot.process = self._gateway()
            slot.pid = slot.process.pid
            return
        slot.pid = os.fork()
        if slot.pid == 0:
            self._be(slot)

    def _be(self, slot: Slot) -> None:
        """The forked child: never returns."""
        code = 1
        try:
            die_with_parent()
            log = os.open(self.scene.root / f"log-{slot.name}", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            os.dup2(log, 2)
            live(slot.role, self.scene, slot.name, slot.life)
            code = 0
        except BaseException:  # noqa: BLE001  # the edge of the process: written to its log, and seen by its exit code
            traceback.print_exc()
        finally:
            os._exit(code)

    def _gateway(self) -> subprocess.Popen[bytes]:
        log = (self.scene.root / "log-gateway").open("ab")
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "holdfast", "--state", str(self.scene.state), "up", "--port", str(self._port)],
                env={
                    **os.environ, "HOLDFAST_MODELS_DEFAULT": "demo/fast", "HOLDFAST_GATEWAY_UNCLEAN_BOOTS_MAX": "0",
                    "PYTHONPATH": os.pathsep.join(sys.path),
                },
                cwd=self.scene.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        finally:
            log.close()

    def _kill_one(self) -> None:
        now = time.monotonic()
        ready = [
            slot
            for slot in self._slots
            if (slot.role != "gateway" or now - slot.born > GATEWAY_LIFE_S)
            and slot.stopped_until - now < 1  # a long stop is to have its effect
        ]
        slot = self._rng.choices(ready, weights=[WORKERS_SHARE if slot.role == "worker" else 1.0 for slot in ready])[0]
        os.kill(slot.pid, signal.SIGKILL)
        self._wait_for(slot)
        self.counts.kills += 1
        self._start(slot)

    def _stop_one(self) -> None:
        stopped = [slot for slot in self._slots if slot.stopped_until]
        if len(stopped) >= STOPPED_MAX:  # the one that has stood longest goes on
            earliest = min(stopped, key=lambda slot: slot.stopped_until)
            earliest.stopped_until = 0.0
            os.kill(earliest.pid, signal.SIGCONT)
        going = [slot for slot in self._slots if not slot.stopped_until]
        asking = [slot for slot in going if slot.role == "user" and self._is_in_a_window(slot)]
        is_long = bool(asking) and not any(one.stopped_until - time.monotonic() > 1 for one in stopped)
        slot = self._rng.choice(asking if is_long else going)
        for_s = 2 * BEAT_TERM_S + self._rng.uniform(0.5, 1.5) if is_long else self._rng.uniform(0.005, 0.2)
        os.kill(slot.pid, signal.SIGSTOP)
        slot.stopped_until = time.monotonic() + for_s
        self.counts.stops += 1
        self.counts.long_stops += is_long

    def _is_in_a_window(self, slot: Slot) -> bool:
        notes = self.scene.notes / f"{slot.name}.{slot.life}.jsonl"
        with suppress(FileNotFoundError), notes.open("rb") as file:
            file.seek(max(0, notes.stat().st_size - 200))
            return f'"{IN_A_WINDOW}"'.encode() in file.read().rstrip(b"\n").rpartition(b"\n")[2]
        return False

    def _edit_one(self) -> None:
        replaces = self._rng.random() < 0.1
        session = self._rng.choice(self.scene.replaced if replaces else self.scene.edited)
        path = path_of(self.scene, session)
        if not outsider.is_begun(path):
            return
        name = "replaced" if replaces else outsider.choose_edit(self._rng)
        edit = outsider.replace if replaces else outsider.EDITS[name][1]
        number = self._outsider.call("edit", session=session, name=name)
        try:
            line = edit(path)
        except FileNotFoundError:
            return  # renamed away under us
        self._outsider.result(number, "edit", session=session, name=name, line=line)
        self.counts.edits += 1

    def _reap(self) -> None:
        """Nobody ends by himself; one that does has met something it should not have."""
        for slot in self._slots:
            if slot.process is not None:
                gone = slot.process.poll() is not None
            else:
                gone = os.waitpid(slot.pid, os.WNOHANG)[0] != 0
            if gone:
                slot.pid, slot.process = 0, None
                log = self.scene.root / ("log-gateway" if slot.role == "gateway" else f"log-{slot.name}")
                self.faults.append(f"{slot.name} ended by itself: {log.read_text(errors='replace')[-3000:]}")
                self._start(slot)

    def _wait_for(self, slot: Slot) -> None:
        if slot.process is not None:
            slot.process.wait()
            slot.process = None
        else:
            os.waitpid(slot.pid, 0)
        slot.pid = 0

    def _end_all(self) -> None:
        for slot in self._slots:
            if slot.pid:
                os.kill(slot.pid, signal.SIGKILL)
                self._wait_for(slot)

    # ── afterwards ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _in_child(self, what: str, seconds_max: float) -> dict[str, Any]:
        """Run a part of `judge.py` in a child of its own, so that this process opens nothing."""
        result = self.scene.root / f"{what}.json"
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                die_with_parent()
                judge = import_module("holdfast.testing.storm.judge")
                result.write_text(json.dumps(getattr(judge, what)(self.scene)))
                code = 0
            except BaseException:  # noqa: BLE001  # the edge of the process: told by the absence of a result
                result.with_suffix(".log").write_text(traceback.format_exc())
            finally:
                os._exit(code)
        until = time.monotonic() + seconds_max
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return {"broken": [f"I9: {what} did not end within {seconds_max:g} s"]}
            time.sleep(0.01)
        if not result.exists():
            return {"broken": [f"{what} failed: {result.with_suffix('.log').read_text()[-1500:]}"]}
        return json.loads(result.read_text())


def prepare(scene: Scene) -> None:
    """Folders, and everything imported that a child will need."""
    for module in WARM:
        import_module(module)
    for folder in (scene.root, scene.state, scene.notes):
        folder.mkdir(mode=0o700, exist_ok=True, parents=True)


def path_of(scene: Scene, session: str) -> Path:
    """Where a session's transcript is."""
    return scene.state / "sessions" / file_stem("agent:storm") / f"{file_stem(session)}.jsonl"


def die_with_parent() -> None:
    """Linux: this process is killed when its parent dies, so that an interrupted storm leaves nobody behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def new_seed() -> int:
    return secrets.randbelow(1_000_000_000)
