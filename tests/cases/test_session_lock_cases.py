"""The write lock: its settings, its errors, that it is not taken twice, and OpenClaw's lock file beside it.

The cases about the lock file run against the code that takes it (`openclaw_lock.py`), with files placed by hand, the
real process table, and a stand-in of OpenClaw's locker as the other process.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.clock import iso
from holdfast.config.load import load_config
from holdfast.session.lock_file import ProcessFacts
from holdfast.store.embedded.openclaw_lock import (
    LockFiles,
    OpenClawLock,
    facts_of,
    lock_path_of,
    release_all,
    sweep_lock_files,
)
from holdfast.store.embedded.store import EmbeddedStore
from holdfast.testing.openclaw import taken_for_openclaw
from tests.cases.given import LEFT_OUT, NOT_UNDERSTOOD, Case, SetAside, check_set_aside, check_words, each
from tests.faults.openclaw import openclaw

FILE = "session_lock_cases.json"
KEY = "agent:main:main"
CASES_LEFT_OUT = {
    "sl-002": "a holding is one append in one call on one thread; nothing inside it takes the lock again",
    "sl-049": "a library installs no signal handlers: a holding lasts about a millisecond and ends by itself, and the "
    "lock file of a process that is killed in one is taken over at once, since its pid is dead",
}
LOCK_FILE_AREAS = ("canonical", "stale", "malformed", "cleanup", "max_hold", "recycled_pid", "signals")
NEEDED = dict.fromkeys(("stale", "malformed", "recycled_pid"), ("lock", "acquire"))
_COMPARED = """
acquire acquire_again acquire_timeout_ms after_release_A after_release_B cleaned fields kill_calls late_release
lock_file lock_path max_hold_ms message message_contains name other_listener owner_lookups payload payload_pid removed
same_lock_file stale stale_ms stale_reasons staleReasons"""
COMPARED = frozenset(_COMPARED.split())
NOT_COMPARED = {
    "code": "OpenClaw's own; what failover makes of it is in failover_classification.json",
    "lock_file_after": "the first of two nested releases leaves it there; holdings are not nested",
    "watchdog_released": "nobody takes a lock from a holder of the same process; past its time another process may",
    "lock_file_after_watchdog": "as `watchdog_released`",
}


def set_aside(case: Case) -> SetAside | None:
    if case.id in CASES_LEFT_OUT:
        return SetAside(LEFT_OUT, CASES_LEFT_OUT[case.id])
    area, needed = case.data["area"], NEEDED.get(case.data["area"], ())
    known = area in ("config", "errors", "reentrancy", *LOCK_FILE_AREAS) and all(name in case.setup for name in needed)
    return None if known else SetAside(NOT_UNDERSTOOD, f"area {area!r} with {sorted(case.setup)}")


@contextmanager
def lock_held(path: Path) -> Iterator[None]:
    """Somebody of this process holds the write lock through a handle of his own."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


@pytest.mark.parametrize("case", each(FILE, set_aside))
async def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    match case.data["area"]:
        case "config":
            must_compose(case, tmp_path)
            await must_open_with(case, tmp_path / "state", monkeypatch)
        case "errors":
            must_tell(case)
        case "canonical":
            must_have_its_place(case, tmp_path)
        case "signals":
            must_outlive(case, tmp_path)
        case "cleanup":
            must_sweep(case, tmp_path)
        case "max_hold" if "timeoutMs" in case.setup:
            must_cap(case, tmp_path)
        case "max_hold" if "hold" in case.setup:
            must_survive_a_theft(case, tmp_path)
        case "max_hold" if "sweep" in case.setup:
            must_sweep(case, tmp_path)
        case "max_hold":
            must_inspect(case, tmp_path)
        case "stale" | "malformed" | "recycled_pid":
            must_acquire(case, tmp_path)
        case _:
            await must_wait_for_the_holder(case, tmp_path / "state")


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def settings_of(case: Case) -> tuple[dict[str, int], dict[str, str]]:
    """What the case sets, by our names: the keys of holdfast.toml, and environment variables."""
    names = {"acquireTimeoutMs": "acquire_timeout_ms", "maxHoldMs": "max_hold_ms", "staleMs": "stale_ms"}
    keys = {names[name]: value for name, value in case.setup["config"].items() if name in names}
    variables = {
        f"HOLDFAST_SESSION_WRITE_LOCK_{name}": value
        for name, value in case.setup.get("env", {}).items()
        if name in ("ACQUIRE_TIMEOUT_MS", "MAX_HOLD_MS", "STALE_MS")
    }
    return keys, variables


def compared(case: Case) -> dict[str, Any]:
    return {name: value for name, value in case.expected.items() if name not in NOT_COMPARED}


def must_compose(case: Case, folder: Path) -> None:
    """Of the gateway's configuration: file, then environment."""
    keys, variables = settings_of(case)
    file = folder / "holdfast.toml"
    file.write_text("[session.write_lock]\n" + "".join(f"{name} = {value}\n" for name, value in keys.items()))
    write_lock = load_config(file, variables).session.write_lock
    assert {name: getattr(write_lock, name) for name in compared(case)} == compared(case)


async def must_open_with(case: Case, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of the library: argument, then environment."""
    keys, variables = settings_of(case)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    how: dict[str, Any] = {**keys, "lock_protocol": "openclaw", "processes": taken_for_openclaw}
    async with holdfast.open(state, **how) as hf:
        assert isinstance(hf.store, EmbeddedStore)
        options = hf.store.options
    assert options.lock_files is not None
    assert options.lock_files.max_hold_ms == options.max_hold_ms
    of_lock_files = {"stale_ms": options.lock_files.stale_ms}
    assert {name: of_lock_files.get(name) or getattr(options, name) for name in compared(case)} == compared(case)


# ── errors and holders ───────────────────────────────────────────────────────────────────────────────────────────────


def must_tell(case: Case) -> None:
    given, expected = case.setup, case.expected
    if "staleReasons" in given:
        stale = holdfast.SessionWriteLockStaleError(
            given.get("lockPath", "a.lock"), given.get("owner", "unknown"), given["staleReasons"]
        )
        assert list(stale.stale_reasons) == expected.get("staleReasons", given["staleReasons"])
        assert type(stale).__name__ == expected.get("name", type(stale).__name__)
        assert str(stale).startswith(expected.get("message", ""))
        assert (stale.holder, stale.path) == (given.get("owner", "unknown"), given.get("lockPath", "a.lock"))
        return
    error = holdfast.SessionWriteLockTimeoutError(given["lockPath"], given["timeoutMs"], given["owner"])
    assert type(error).__name__ == expected["name"]
    assert str(error).startswith(expected["message"])
    # Their fields are timeoutMs, owner and lockPath.
    assert (error.timeout_ms, error.holder, error.path) == (given["timeoutMs"], given["owner"], given["lockPath"])


async def must_wait_for_the_holder(case: Case, state: Path) -> None:
    """A second taker gets a timeout that says so, and the lock once it is released."""
    timeout_ms = case.setup["acquire"]["timeoutMs"] if isinstance(case.setup["acquire"], dict) else 5
    async with holdfast.open(state, acquire_timeout_ms=timeout_ms) as hf:
        async with hf.turn(KEY) as turn:
            path = Path(turn.transcript.path)
        with lock_held(path):
            with pytest.raises(holdfast.SessionWriteLockTimeoutError) as caught:
                await hf.session(KEY).append_metadata(holdfast.session_info("late"))
            assert case.expected.get("message_contains", "") in str(caught.value)
            assert "late" not in path.read_text()
    if case.expected.get("acquire_again") == "ok":
        async with holdfast.open(state) as hf:  # with the usual time to wait
            await hf.session(KEY).append_metadata(holdfast.session_info("in time"))
            assert "in time" in path.read_text()


# ── the lock file ────────────────────────────────────────────────────────────────────────────────────────────────────

OURS = LockFiles(processes=taken_for_openclaw)


def pid_of(value: Any) -> Any:
    return os.getpid() if value == "<current pid>" else value


def text_of(lock: Any) -> str:
    """The lock file that a case describes, with ages and facts of this moment."""
    if not isinstance(lock, dict):
        return lock
    fields = dict(lock)
    if "pid" in fields:
        fields["pid"] = pid_of(fields["pid"])
    if "createdAt" in fields:
        age_s = 0 if fields["createdAt"] == "now" else -int(fields["createdAt"].removesuffix("s"))
        fields["createdAt"] = iso(datetime.now(UTC) - timedelta(seconds=age_s))
    ours = facts_of(os.getpid()).starttime
    assert ours is not None
    fields["starttime"] = {"differs": ours + 1, "matches": ours}.get(
        fields.get("starttime", ""), fields.get("starttime")
    )
    if fields["starttime"] is None:
        del fields["starttime"]
    return json.dumps(fields)


def transcript_in(folder: Path, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.touch()
    return path


def place(transcript: Path, case: Case) -> Path:
    """The lock file of a case, with its age."""
    path = lock_path_of(transcript)
    path.write_text(text_of(case.setup["lock"]))
    at = time.time() - case.setup.get("lock_age_s", 0)
    os.utime(path, (at, at))
    return path


def must_acquire(case: Case, folder: Path) -> None:
    transcript, how = transcript_in(folder), case.setup["acquire"]
    terms = replace(OURS, stale_ms=how.get("staleMs", OURS.stale_ms))
    holder, waiter = OpenClawLock(transcript, terms), OpenClawLock(transcript, terms)
    if case.setup.get("hold"):
        assert holder.try_take()
        lock_path_of(transcript).write_text(text_of({"createdAt": "now", **case.setup["lock"]}))
    else:
        place(transcript, case)
    taken = waiter.take(how["timeoutMs"] / 1000)
    assert ("ok" if taken else "timeout") == case.expected["acquire"]
    if taken:
        assert json.loads(lock_path_of(transcript).read_bytes())["pid"] == pid_of(
            case.expected.get("payload_pid", "<current pid>")
        )
        assert waiter.is_ours()
    waiter.release()
    holder.release()


def must_inspect(case: Case, folder: Path) -> None:
    lock = OpenClawLock(transcript_in(folder), replace(OURS, stale_ms=case.setup["staleMs"]))
    lock.path.write_text(text_of(case.setup["inspect"]))
    found = lock.find(respect_max_hold=case.setup["respect_max_hold"])
    assert bool(found.reasons) is case.expected["stale"]
    assert list(found.reasons) == case.expected["stale_reasons"]


def processes_of(case: Case) -> tuple[Callable[[int], ProcessFacts], list[int]]:
    """Processes whose command line is as the case says, and who was asked about."""
    asked: list[int] = []
    arguments = case.setup.get("owner_args", ["openclaw"])

    def look(pid: int) -> ProcessFacts:
        asked.append(pid)
        if arguments == "throws":
            raise OSError("the process table cannot be read")
        return replace(facts_of(pid), arguments=None if arguments is None else tuple(arguments))

    return look, asked


def must_sweep(case: Case, folder: Path) -> None:
    given, expected = case.setup, case.expected
    processes, asked = processes_of(case)
    if given.get("locks"):
        for n in range(given["locks"]):
            lock_path_of(transcript_in(folder, f"{n}.jsonl")).write_text(
                text_of({"pid": os.getpid(), "createdAt": "now"})
            )
    else:
        place(transcript_in(folder), case)
    sweeps = given.get("sweeps", [given.get("sweep")])
    seen = []
    for sweep in sweeps:
        terms = LockFiles(stale_ms_of(sweep, folder), processes=processes)
        seen.append(list(sweep_lock_files(folder, terms, remove=sweep.get("remove", False))))
    stale = [bool(swept.finding.reasons) for one in seen for swept in one]
    removed = [swept.removed for one in seen for swept in one]
    facts = {
        "stale": stale if "sweeps" in given else stale[0],
        "stale_reasons": list(seen[0][0].finding.reasons),
        "removed": removed[0],
        "cleaned": sum(removed),
        "owner_lookups": len(asked),
    }
    assert {name: facts[name] for name in expected} == expected
    assert len(list(folder.glob("*.lock"))) == given.get("locks", 1) - sum(removed)


def stale_ms_of(sweep: dict[str, Any], folder: Path) -> int:
    """Of the sweep itself, or as the configuration gives it: file, then environment."""
    if "config_stale_ms" not in sweep:
        return sweep.get("staleMs", OURS.stale_ms)
    file = folder / "holdfast.toml"
    file.write_text(f"[session.write_lock]\nstale_ms = {sweep['config_stale_ms']}\n")
    variables = {"HOLDFAST_SESSION_WRITE_LOCK_STALE_MS": str(sweep["env_stale_ms"])} if "env_stale_ms" in sweep else {}
    return load_config(file, variables).session.write_lock.stale_ms


def must_have_its_place(case: Case, folder: Path) -> None:
    given, expected = case.setup, case.expected
    if "paths" in given:
        (folder / "real").mkdir()
        (folder / "link").symlink_to(folder / "real")
        first, second = (OpenClawLock(folder / path, OURS) for path in given["paths"])
        assert first.try_take()
        assert not second.try_take()
        assert (first.path == second.path) is expected["same_lock_file"]
        first.release()
        assert second.try_take()
        second.release()
        return
    lock = OpenClawLock(folder / given["acquire"], OURS)
    assert lock.try_take()
    assert lock.path == folder / expected["lock_path"]
    text = json.loads(lock.path.read_bytes())
    assert {name: text[name] for name in expected["payload"]} == {
        name: pid_of(value) for name, value in expected["payload"].items()
    }
    assert lock.path.stat().st_mode & 0o777 == 0o600
    lock.release()
    assert not lock.path.exists()


def must_cap(case: Case, folder: Path) -> None:
    lock = OpenClawLock(transcript_in(folder), replace(OURS, max_hold_ms=case.setup["timeoutMs"] * 10))
    assert lock.try_take()
    assert json.loads(lock.path.read_bytes())["maxHoldMs"] == case.expected["max_hold_ms"]
    lock.release()


def must_survive_a_theft(case: Case, folder: Path) -> None:
    """A holds past its time, and B, another process, takes it over: A's late release leaves B's lock alone."""
    transcript = transcript_in(folder)
    lock = OpenClawLock(transcript, replace(OURS, max_hold_ms=case.setup["hold"]["maxHoldMs"]))
    assert lock.try_take()
    with openclaw("hold", transcript) as other:
        assert other.hears().startswith("held "), "taken from us, since our time is over and we are not named openclaw"
        assert not lock.is_ours()
        lock.release()
        assert presence(lock.path) == case.expected["after_release_A"]
        other.goes_on()
        assert other.hears() == "released"
        assert presence(lock.path) == case.expected["after_release_B"]


def presence(path: Path) -> str:
    return "present" if path.exists() else "absent"


def must_outlive(case: Case, folder: Path) -> None:
    if case.setup.get("exit"):
        must_be_gone_after_exit(case, folder)
        return
    heard: list[int] = []

    def listener(number: int, _frame: object) -> None:
        heard.append(number)

    lock = OpenClawLock(transcript_in(folder), OURS)
    number = getattr(signal, case.setup["signal"])
    before = signal.signal(number, listener)
    try:
        assert lock.try_take()
        signal.raise_signal(number)
        lock.release()  # the holding ends by itself, and this process is there to see it
        kept = signal.getsignal(number) is listener
    finally:
        signal.signal(number, before)
    assert presence(lock.path) == case.expected["lock_file"]
    assert case.expected["other_listener"] == "kept, not called by cleanup"
    assert kept
    assert heard == [number], "once, by the signal itself"
    assert case.expected["kill_calls"] == 0


def must_be_gone_after_exit(case: Case, folder: Path) -> None:
    """Of a process that ends in a holding; and releasing after all were released is harmless."""
    transcript = transcript_in(folder)
    code = f"""
from pathlib import Path
from holdfast.store.embedded.openclaw_lock import LockFiles, OpenClawLock
lock = OpenClawLock(Path({str(transcript)!r}), LockFiles())
assert lock.try_take()
print(lock.path.exists())
"""
    done = subprocess.run([sys.executable, "-X", "openclaw", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert presence(lock_path_of(transcript)) == case.expected["lock_file"]
    lock = OpenClawLock(transcript, OURS)
    assert lock.try_take()
    release_all()
    assert presence(lock.path) == case.expected["lock_file"]
    lock.release()
    assert case.expected["late_release"] == "ok"


def test_what_is_set_aside_has_its_reason() -> None:
    check_set_aside(FILE, set_aside, CASES_LEFT_OUT)


def test_each_expectation_is_compared_or_named_as_not_compared() -> None:
    check_words(FILE, set_aside, COMPARED, NOT_COMPARED)
