"""Beside a live OpenClaw: its lock file, with a stand-in of its locker, real processes and real kills."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.model.failure import classify
from holdfast.recovery.watchdog import Watchdog
from holdfast.session.lock_file import ProcessFacts, read_lock, write_lock
from holdfast.store.embedded.faults import Point
from holdfast.store.embedded.machine import Machine
from holdfast.store.embedded.openclaw_lock import LockFiles, OpenClawLock, facts_of, lock_path_of, sweep_lock_files
from holdfast.testing.clock import VirtualClock
from holdfast.testing.faults import AtPoint
from holdfast.testing.openclaw import taken_for_openclaw
from tests.faults import checks, outsider
from tests.faults.openclaw import OpenClaw, openclaw, why_stale
from tests.faults.remote import GoneError, Remote, RemoteError, Troupe, troupe

KEY = "agent:main:main"
OURS = LockFiles(processes=taken_for_openclaw)
BESIDE: dict[str, Any] = {"lock_protocol": "openclaw"}
HERE: dict[str, Any] = {**BESIDE, "processes": taken_for_openclaw}


async def begun(state: Path, **how: Any) -> Path:
    """A state with one settled turn; its transcript."""
    async with holdfast.open(state, **HERE, **how) as hf, hf.turn(KEY) as turn:
        await turn.append(holdfast.user("hello"))
        await turn.append(holdfast.assistant("hi", model="demo/demo"))
        return Path(turn.transcript.path)


async def hears(other: OpenClaw) -> str:
    return await asyncio.to_thread(other.hears)


def age(path: Path, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(path, (at, at))


@contextmanager
def sleeping() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "60"])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


# ── the rules ────────────────────────────────────────────────────────────────────────────────────────────────────────


def lock_texts(pids: dict[Any, int | None]) -> Iterator[tuple[bytes, float]]:
    """What a lock file may say of each of these processes (with their start times), and how old it is."""
    stamps = {
        age_s: time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - age_s)) for age_s in (0, 400, 2000)
    }
    for pid, start in pids.items():
        for created in (*stamps.values(), "soon", None):
            for hold, starttime, age_s in ((300_000, start, 0.0), (1000, (start or 0) + 1, 10.0), (None, None, 10.0)):
                text = {"pid": pid, "createdAt": created, "maxHoldMs": hold, "starttime": starttime}
                yield json.dumps({name: value for name, value in text.items() if value is not None}).encode(), age_s


def test_both_programs_judge_one_lock_file_alike(tmp_path: Path) -> None:
    dead, zombie = subprocess.Popen(["true"]), subprocess.Popen(["true"])
    dead.wait()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    lock = OpenClawLock(tmp_path / "a.jsonl", OURS)
    judged = Counter[str]()
    with openclaw("hold", tmp_path / "other.jsonl") as theirs, sleeping() as stranger:
        assert theirs.hears() == "held"
        pids = {pid: facts_of(pid).starttime for pid in (theirs.pid, stranger)}
        for raw, age_s in lock_texts({**pids, **dict.fromkeys((dead.pid, zombie.pid, 2**30, 2**40, None, "7", -1))}):
            lock.path.write_bytes(raw)
            age(lock.path, age_s)
            found, reason = lock.find(), why_stale(raw, lock.path.stat().st_mtime)
            assert found.may_be_taken_over == (reason is not None), (raw, age_s, found, reason)
            assert reason in (None, "damaged") or reason in found.reasons
            judged[found.kind] += 1
    zombie.wait()
    assert min(judged[kind] for kind in ("held", "stale", "damaged_young", "damaged_old")) > 0


# ── waiting for each other ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_wait_for_openclaw_is_bounded_and_no_failure_of_a_model(tmp_path: Path) -> None:
    path = await begun(tmp_path / "state")
    before = path.read_bytes()
    async with holdfast.open(tmp_path / "state", acquire_timeout_ms=150, **HERE) as hf:
        with openclaw("hold", path) as other:
            assert await hears(other) == "held"
            with pytest.raises(holdfast.SessionWriteLockTimeoutError) as caught:
                await hf.session(KEY).append_metadata(holdfast.session_info("late"))
            assert f"{path}.lock of pid={other.pid}" in str(caught.value)
            found = classify(caught.value)
            assert (found.reason, found.coordination) == (None, True)
            with pytest.raises(holdfast.SessionWriteLockTimeoutError):
                async with hf.turn(KEY, wait_s=0.1):
                    raise AssertionError("claimed while OpenClaw writes")
            assert path.read_bytes() == before
            other.goes_on()
            assert await hears(other) == "released"
        await hf.session(KEY).append_metadata(holdfast.session_info("in time"))
    assert b"in time" in path.read_bytes()
    assert not lock_path_of(path).exists()


async def test_an_append_waits_until_openclaw_is_done_and_goes_on_after_its_lines(tmp_path: Path) -> None:
    path = await begun(tmp_path / "state")
    async with holdfast.open(tmp_path / "state", **HERE) as hf, hf.turn(KEY) as turn:
        with openclaw("hold", path, lines=2) as other:
            assert await hears(other) == "held"
            appending = asyncio.create_task(turn.append(holdfast.user("after them")))
            done, _ = await asyncio.wait({appending}, timeout=0.1)
            assert not done
            other.goes_on()
            assert await hears(other) == "released"
            await appending
    ids = [entry["id"] for entry in checks.entries(path) if entry["type"] != "session"]
    assert ids.index("held-0") < ids.index("held-1") < len(ids) - 1


async def test_openclaw_waits_while_an_append_is_under_way(tmp_path: Path) -> None:
    path = await begun(tmp_path / "state")
    async with troupe() as processes:
        remote = await processes.start(tmp_path / "state", **BESIDE)
        await remote.call("arm", point="append.after_intent", act="stop")
        writing = remote.ask("metadata", session=KEY, kind="session_info", text="ours")
        assert await remote.event() == "at append.after_intent"
        text = json.loads(lock_path_of(path).read_bytes())
        assert text["pid"] == remote.pid
        assert text["starttime"] == facts_of(remote.pid).starttime
        with openclaw("try_for", path, timeout_s=0.2) as other:
            assert await hears(other) == "timeout"
        remote.cont()
        await writing
        with openclaw("try_for", path, timeout_s=20) as other:
            assert await hears(other) == "got"


@pytest.mark.parametrize(
    ("act", "how", "verdict"),
    [("try_for", {"timeout_s": 5}, "unchanged"), ("append_many", {"count": 2}, "adopted"),
     ("append_many", {"count": 1, "kind": "user"}, "foreign_turn")],
)  # fmt: skip
async def test_the_lock_file_is_free_while_the_model_streams_and_the_fence_tells_what_openclaw_did(
    act: str, how: dict[str, Any], verdict: str, tmp_path: Path
) -> None:
    path = await begun(tmp_path / "state")
    async with holdfast.open(tmp_path / "state", **HERE) as hf:
        async with hf.turn(KEY) as turn:
            await turn.append(holdfast.user("question"))
            try:
                async with turn.prompt_window() as window:
                    assert not lock_path_of(path).exists()
                    with openclaw(act, path, **how) as other:
                        if act == "append_many":
                            assert await hears(other) == "ready"
                            other.goes_on()
                        assert (await hears(other)).split()[0] in ("got", "wrote")
                        await asyncio.to_thread(other.ends)
                    window.finished("answer")
                found = window.verdict
            except holdfast.SessionTakeoverError as lost:
                found = lost.verdict
        assert found is not None
        assert found.kind == verdict


# ── a lock file of a dead process ────────────────────────────────────────────────────────────────────────────────────

DIES_AT: list[tuple[Point, str]] = [
    ("lock_file.after_create", "damaged"),
    ("lock_file.after_fill", "dead-pid"),
    ("append.after_intent", "dead-pid"),
    ("append.after_write", "dead-pid"),
    ("append.after_record", "dead-pid"),
    ("lock_file.before_release", "dead-pid"),
    ("lock_file.after_take_over", "dead-pid"),
]


async def killed_at(point: Point, state: Path, path: Path, processes: Troupe) -> Remote:
    """A process that has died at a point of an append, with the lock file as it left it."""
    remote = await processes.start(state, **BESIDE)
    if point == "lock_file.after_take_over":
        path.with_name(path.name + ".lock").write_bytes(write_lock(2**30, 0, 1, None))
    await remote.call("arm", point=point)
    with pytest.raises(GoneError):
        await remote.call("metadata", session=KEY, kind="session_info", text="from the dead")
    assert await remote.dies() == -9
    return remote


@pytest.mark.parametrize(("point", "reason"), DIES_AT)
async def test_what_a_killed_process_leaves_is_cleared_by_either_program(
    point: Point, reason: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    path = await begun(state)
    lock_file = lock_path_of(path)
    async with troupe() as processes:
        await killed_at(point, state, path, processes)
        left = lock_file.read_bytes()
        if reason == "damaged":
            assert left == b""
            with openclaw("try_for", path, timeout_s=0.1) as other:
                assert await hears(other) == "timeout", "it may be one that is just being filled"
            age(lock_file, 6)
        with openclaw("try_for", path, timeout_s=5) as other:
            assert await hears(other) == f"got {reason}"
        lock_file.write_bytes(left)
        if reason == "damaged":
            age(lock_file, 6)
        survivor = await processes.start(state, **BESIDE)
        await survivor.call("metadata", session=KEY, kind="session_info", text="from the living")
        assert not lock_file.exists()
    async with holdfast.open(state, **HERE) as hf, hf.turn(KEY) as turn:
        await turn.append(holdfast.user("on it goes"))
    checks.check_transcript(checks.entries(path))
    assert path.read_bytes().count(b"from the living") == 1
    assert path.read_bytes().count(b"from the dead") <= 1


@pytest.mark.parametrize("point", ["lock_file.after_fill", "append.after_write", "claim.after_record"])
async def test_a_turn_that_died_in_a_holding_is_recovered_past_its_lock_file(point: Point, tmp_path: Path) -> None:
    """By whoever looks for dead turns, without a new message for that session."""
    state = tmp_path / "state"
    await begun(state)
    async with troupe() as processes:
        remote = await processes.start(state, **BESIDE)
        admission = await remote.call("accept", session=KEY, text="question")
        if point == "claim.after_record":
            await remote.call("arm", point=point)
            with pytest.raises(GoneError):
                await remote.call("claim", turn="t", session=KEY, wait_s=5, input_id=admission["id"])
        else:
            await remote.call("claim", turn="t", session=KEY, wait_s=5, input_id=admission["id"])
            await remote.call("arm", point=point)
            with pytest.raises(GoneError):
                await remote.call("append_input", turn="t")
        assert await remote.dies() == -9
        [lock_file] = state.glob("sessions/*/*.lock")
        left = lock_file.read_bytes()
        async with holdfast.open(state, **HERE) as hf:
            assert not lock_file.exists(), "an opening sweeps what the dead have left"
            lock_file.write_bytes(left)
            report = await hf.recover()
            assert report.outcome == "effective"
            assert (await hf.input(admission["id"])).state == "queued"
            assert not lock_file.exists()


async def test_an_opening_sweeps_lock_files_of_the_dead_and_leaves_all_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    folder = (await begun(state)).parent
    dead, live, odd, young = (folder / f"{name}.jsonl.lock" for name in ("dead", "live", "odd", "young"))
    dead.write_bytes(write_lock(2**30, 0, 300_000, None))
    (folder / "precious").write_text("not a lock file")
    os.link(folder / "precious", odd)
    age(odd, 60)
    young.touch()
    with openclaw("hold", folder / "live.jsonl") as other:
        assert await hears(other) == "held"
        async with holdfast.open(state, **HERE):
            assert (dead.exists(), live.exists(), odd.exists(), young.exists()) == (False, True, True, True)
        other.goes_on()
        assert await hears(other) == "released"
    assert odd.read_text() == "not a lock file"
    assert f"lock file {odd} could not be removed: it is no lock file" in caplog.text


async def test_a_running_gateway_sweeps_lock_files_of_the_dead_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of sessions in which nobody speaks here, so that the other program is not kept from them; one that cannot be
    removed keeps nothing else from it, and is told of once.
    """
    state, clock = tmp_path / "state", VirtualClock()
    folder = (await begun(state)).parent
    stuck, dead, live = (folder / f"{name}.jsonl.lock" for name in ("a-stuck", "b-dead", "c-live"))

    def refuse() -> None:
        if stuck.exists() and read_lock(stuck.read_bytes()).pid == os.getpid():
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    fault = AtPoint("lock_file.before_release", act=refuse, times=None)
    async with holdfast.open(state, clock=clock, faults=fault, **HERE) as hf:
        watchdog = Watchdog(hf)
        await watchdog.look()
        for path in (stuck, dead):
            path.write_bytes(write_lock(2**30, 0, 300_000, None))
        with openclaw("hold", folder / "c-live.jsonl") as other:
            assert await hears(other) == "held"
            await watchdog.look()
            assert dead.exists(), "not yet a minute ago"
            await clock.advance(60)
            await watchdog.look()
            assert (stuck.read_bytes(), dead.exists(), live.exists()) == (b"", False, True)
            age(stuck, 6)
            await clock.advance(60)
            await watchdog.look()
            assert (stuck.exists(), live.exists()) == (True, True)
            other.goes_on()
            assert await hears(other) == "released"
        [told] = [one.message for one in caplog.records if one.levelname == "ERROR"]
        assert told == (
            f"lock file {stuck} could not be removed: Permission denied; it is emptied, and whoever waits for it takes "
            "it over after 5 s (stale: dead-pid, too-old)"
        )


def test_a_lock_file_that_is_just_being_made_is_no_orphan_to_a_sweep_in_another_thread(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    class Sweeping(Machine):
        def write(self, fd: int, data: bytes | memoryview) -> int:
            written = super().write(fd, data)
            [swept] = sweep_lock_files(tmp_path, OURS)
            assert (swept.finding.kind, swept.removed) == ("ours", False)
            return written

    with Sweeping().entered():
        lock = OpenClawLock(path, OURS)
        assert lock.try_take()
        assert lock.is_ours()
        lock.release()
    assert not lock_path_of(path).exists()


async def test_a_stale_lock_file_that_cannot_be_taken_over_is_named(tmp_path: Path) -> None:
    state = tmp_path / "state"
    path = await begun(state)
    async with holdfast.open(state, acquire_timeout_ms=50, **HERE) as hf:
        (tmp_path / "precious").write_text("not a lock file")
        os.link(tmp_path / "precious", f"{path}.lock")
        age(tmp_path / "precious", 60)
        with pytest.raises(holdfast.SessionWriteLockStaleError) as caught:
            await hf.session(KEY).append_metadata(holdfast.session_info("x"))
        assert caught.value.stale_reasons == ("missing-pid", "invalid-createdAt")
        assert "remove that file" in str(caught.value)
        assert (tmp_path / "precious").read_text() == "not a lock file"
        assert classify(caught.value).coordination


# ── never another's ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_successor_that_came_before_the_take_over_keeps_its_lock(tmp_path: Path) -> None:
    """OpenClaw removes the stale file and makes its own between our look and our step."""
    path = lock_path_of(tmp_path / "a.jsonl")
    successor = write_lock(os.getppid(), time.time_ns() // 10**6, 300_000, facts_of(os.getppid()).starttime)

    def process_table(pid: int) -> ProcessFacts:
        if pid == 2**30:
            path.unlink()
            path.write_bytes(successor)
        return replace(taken_for_openclaw(pid), arguments=("openclaw",))

    path.write_bytes(write_lock(2**30, 0, 1, None))
    assert not OpenClawLock(tmp_path / "a.jsonl", LockFiles(processes=process_table)).take(0.05)
    assert path.read_bytes() == successor


def test_a_successor_that_came_in_the_instant_of_the_take_over_keeps_its_lock(tmp_path: Path) -> None:
    """After our last look, before our text: that goes into a file that has no name any more."""
    path = lock_path_of(tmp_path / "a.jsonl")
    successor = write_lock(os.getppid(), time.time_ns() // 10**6, 300_000, facts_of(os.getppid()).starttime)
    swaps: list[int] = []

    class Swapping(Machine):
        def pwrite(self, fd: int, data: bytes, at: int) -> int:
            swaps.append(fd)
            path.unlink()
            path.write_bytes(successor)
            return super().pwrite(fd, data, at)

    def process_table(pid: int) -> ProcessFacts:
        return replace(taken_for_openclaw(pid), arguments=("openclaw",))

    path.write_bytes(write_lock(2**30, 0, 1, None))
    with Swapping().entered():
        assert not OpenClawLock(tmp_path / "a.jsonl", LockFiles(processes=process_table)).take(0.05)
    assert len(swaps) == 1
    assert path.read_bytes() == successor


def test_a_successor_that_came_during_the_take_over_keeps_its_lock(tmp_path: Path) -> None:
    """OpenClaw had judged the old text, and removes what is ours by now: it does not count as taken."""
    path = lock_path_of(tmp_path / "a.jsonl")
    successor = write_lock(os.getppid(), time.time_ns() // 10**6, 300_000, facts_of(os.getppid()).starttime)

    def at(point: Point) -> None:
        if point == "lock_file.after_take_over":
            path.unlink()
            path.write_bytes(successor)

    def process_table(pid: int) -> ProcessFacts:
        return replace(taken_for_openclaw(pid), arguments=("openclaw",))

    path.write_bytes(write_lock(2**30, 0, 1, None))
    lock = OpenClawLock(tmp_path / "a.jsonl", LockFiles(processes=process_table), at)
    assert not lock.take(0.05)
    lock.release()
    assert path.read_bytes() == successor


def test_a_longer_text_is_covered_whole_when_it_is_taken_over(tmp_path: Path) -> None:
    path = lock_path_of(tmp_path / "a.jsonl")
    for text in ('{"pid": 1073741824, "why": "' + "x" * 500 + '"}', "?" * 100_000):
        path.write_text(text)
        age(path, 60)
        lock = OpenClawLock(tmp_path / "a.jsonl", OURS)
        assert lock.take(1)
        assert json.loads(path.read_bytes())["pid"] == os.getpid()
        lock.release()
        assert not path.exists()


def test_of_many_that_take_over_one_stale_lock_one_has_it_at_a_time(tmp_path: Path) -> None:
    path, mark, clashes = lock_path_of(tmp_path / "a.jsonl"), tmp_path / "mark", []
    start = threading.Barrier(4)

    def go() -> None:
        lock = OpenClawLock(tmp_path / "a.jsonl", OURS)
        start.wait()
        assert lock.take(30)
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            time.sleep(0.005)
            mark.unlink()
        except FileExistsError:
            clashes.append(1)
        lock.release()

    for _ in range(5):
        path.write_bytes(write_lock(2**30, 0, 1, None))
        threads = [threading.Thread(target=go) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert clashes == []


async def test_a_process_that_stood_still_for_too_long_notices_before_it_writes(tmp_path: Path) -> None:
    """OpenClaw takes its lock over by its rules, and writes; the append then goes after those lines."""
    state = tmp_path / "state"
    path = await begun(state)
    async with troupe() as processes:
        remote = await processes.start(state, max_hold_ms=50, **BESIDE)
        await remote.call("arm", point="lock_file.after_fill", act="stop")
        writing = remote.ask("metadata", session=KEY, kind="session_info", text="ours")
        assert await remote.event() == "at lock_file.after_fill"
        with openclaw("hold", path, lines=2) as other:
            assert await hears(other) == "held hold-exceeded"
            remote.cont()
            done, _ = await asyncio.wait({writing}, timeout=0.3)
            assert not done, "it waits for its turn again"
            assert b"ours" not in path.read_bytes()
            other.goes_on()
            assert await hears(other) == "released", "nobody has taken it from them"
        await writing
    ids = [entry["id"] for entry in checks.entries(path)]
    assert "held-1" in ids[:-1]
    assert b"ours" in path.read_bytes().splitlines()[-1]
    checks.check_transcript(checks.entries(path))


def test_a_forked_child_leaves_its_parents_lock_file_alone(tmp_path: Path) -> None:
    lock = OpenClawLock(tmp_path / "a.jsonl", OURS)
    assert lock.try_take()
    pid = os.fork()
    if pid == 0:
        lock.release()
        os._exit(0)
    os.waitpid(pid, 0)
    assert lock.is_ours()
    lock.release()
    assert not lock.path.exists()


# ── together ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_processes_and_openclaw_write_to_one_transcript_and_no_line_is_lost_or_torn(tmp_path: Path) -> None:
    state, count, ours = tmp_path / "state", 25, Counter[str]()
    path = await begun(state)
    async with troupe() as processes:
        owner = await processes.start(state, **BESIDE)
        writer = await processes.start(state, **BESIDE)
        await owner.call("claim", turn="t", session=KEY, wait_s=10)

        def goes_on(who: str, theirs: asyncio.Future[int]) -> int | None:
            """The number of the next line, until everybody has written enough beside the others."""
            if theirs.done() and ours[who] >= count:
                return None
            ours[who] += 1
            return ours[who] - 1

        async def owns(theirs: asyncio.Future[int]) -> None:
            while (n := goes_on("owner", theirs)) is not None:
                await owner.call("enter", turn="t")
                verdict = await owner.call("leave", turn="t")
                assert verdict["kind"] in ("unchanged", "advanced", "adopted"), verdict
                await owner.call("append", turn="t", kind="user", text=f"owner {n}")

        async def notes(theirs: asyncio.Future[int]) -> None:
            while (n := goes_on("writer", theirs)) is not None:
                while True:
                    try:
                        await writer.call("metadata", session=KEY, kind="session_info", text=f"writer {n}")
                        break
                    except RemoteError as refused:
                        if "TranscriptUnsettledError" not in refused.bases:  # that asks to try again
                            raise

        with openclaw("append_many", path, count=count, pause_ms=1) as other:
            assert await hears(other) == "ready"
            other.goes_on()
            theirs = asyncio.ensure_future(asyncio.to_thread(other.ends))
            await asyncio.gather(owns(theirs), notes(theirs))
            assert await theirs == 0
            said = [await hears(other) for _ in range(count)]
        await owner.call("settle", turn="t")
    assert said == [f"wrote {n}" for n in range(count)], "it has robbed nobody"
    entries = checks.entries(path)
    text = path.read_text()
    assert len(entries) == len(text.splitlines())
    assert [entry["id"] for entry in entries if entry["id"].startswith("theirs-")] == [
        f"theirs-{n}" for n in range(count)
    ]
    for who, written in ours.items():
        for n in range(written):
            assert text.count(f'"{who} {n}"') == 1
    assert not lock_path_of(path).exists()


# ── being taken for OpenClaw ─────────────────────────────────────────────────────────────────────────────────────────

OPENS = """
import asyncio, sys, holdfast
async def main():
    async with holdfast.open({state!r}, lock_protocol={protocol!r}) as hf, hf.turn("agent:main:main") as turn:
        await turn.append(holdfast.user("hello"))
    print("holdfast.store.embedded.openclaw_lock" in sys.modules)
asyncio.run(main())
"""


def opened(state: Path, protocol: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", OPENS.format(state=str(state), protocol=protocol)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_process_that_openclaw_would_rob_is_refused_with_the_way_out(tmp_path: Path) -> None:
    refused = opened(tmp_path / "state", "openclaw")
    assert "ConfigError" in refused.stderr
    assert "python -X openclaw" in refused.stderr
    assert opened(tmp_path / "state", "openclaw", "-X", "openclaw").stdout == "True\n"


def test_nothing_of_it_is_loaded_where_it_is_off(tmp_path: Path) -> None:
    assert opened(tmp_path / "state", "none").stdout == "False\n"


def test_a_command_starts_itself_again_as_a_process_that_openclaw_respects(tmp_path: Path) -> None:
    (tmp_path / "holdfast.toml").write_text('[session]\nlock_protocol = "openclaw"\n')
    command = [sys.executable, "-m", "holdfast", "--state", "state", "send", KEY, "-"]
    done = subprocess.run(command, input="from a pipe", capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (0, "echo #1: from a pipe\n"), done.stderr
    assert list((tmp_path / "state").rglob("*.lock")) == [tmp_path / "state" / "ledger.lock"]


def test_the_stand_in_shares_nothing_with_what_it_stands_beside() -> None:
    assert "holdfast" not in Path(outsider.__file__).with_name("openclaw.py").read_text().lower().split('"""', 2)[2]
