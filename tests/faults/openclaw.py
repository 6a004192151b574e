"""A small stand-in of OpenClaw's locker: it takes the lock file beside a transcript as OpenClaw 2026.5.22 does.

Its races included: a stale file is read, judged, compared once more and removed; so is one's own at release. It knows
nothing of Holdfast and shares no code with it. Run as a process whose command line names openclaw; says one line per
event on standard output, and goes on when it reads one on standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults import outsider  # the lines that it writes

POLL_S = 0.05
STALE_MS, HOLD_MS, GRACE_MS = 1_800_000, 300_000, 5_000


class TimedOutError(Exception):
    """OpenClaw's SessionWriteLockTimeoutError."""


def lock_path(transcript: str) -> str:
    return os.path.join(os.path.realpath(os.path.dirname(transcript)), os.path.basename(transcript) + ".lock")


def stat_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def looks_like_openclaw(pid: int) -> bool:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return True
    words = raw.lower().rstrip("\0").split("\0")
    return not raw or any(word.endswith(("/openclaw", "/openclaw.mjs")) or word == "openclaw" for word in words)


def epoch_ms(stamp: object) -> float | None:
    try:
        return datetime.fromisoformat(stamp).timestamp() * 1000 if isinstance(stamp, str) else None
    except ValueError:
        return None


def why_stale(raw: bytes, mtime: float) -> str | None:
    """The reason for which a waiter removes this lock; None: it is respected."""
    try:
        text = json.loads(raw)
    except ValueError:
        text = {}
    pid, hold, start = text.get("pid"), text.get("maxHoldMs"), text.get("starttime")
    created_ms = epoch_ms(text.get("createdAt"))
    if not (isinstance(pid, int) and pid > 0):
        pid = None
    reason = why_not_the_owner(pid, start) if pid is not None else None
    if reason is not None:
        return reason
    if created_ms is not None:
        age_ms = time.time() * 1000 - created_ms
        if age_ms > STALE_MS:
            return "too-old"
        if isinstance(hold, int) and age_ms > hold:
            return "hold-exceeded"
    if pid is not None and created_ms is not None:
        return None
    return "damaged" if (time.time() - mtime) * 1000 > GRACE_MS else None


def why_not_the_owner(pid: int, start: object) -> str | None:
    try:
        os.kill(pid, 0)
        fields = stat_of(pid)
    except (OSError, OverflowError):
        return "dead-pid"
    if fields[0] == "Z":
        return "dead-pid"
    if isinstance(start, int) and start != int(fields[19]):
        return "recycled-pid"
    if not looks_like_openclaw(pid):
        return "non-openclaw-owner"
    return "orphan-self-pid" if pid == os.getpid() else None


class Lock:
    """The lock file of one transcript, made by this process."""

    def __init__(self, transcript: str, hold_ms: int = HOLD_MS) -> None:
        self.path = lock_path(transcript)
        self.hold_ms = hold_ms
        self.stolen: list[str] = []
        self._mine: tuple[int, bytes] = (0, b"")

    def take(self, timeout_s: float = 60.0) -> None:
        ends = time.monotonic() + timeout_s
        while not self._make():
            if self._remove_if_stale():
                continue
            if time.monotonic() > ends:
                raise TimedOutError(self.path)
            time.sleep(POLL_S)

    def _make(self) -> bool:
        try:
            fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = {
            "pid": os.getpid(),
            "createdAt": at,
            "maxHoldMs": self.hold_ms,
            "starttime": int(stat_of(os.getpid())[19]),
        }
        raw = json.dumps(text, indent=2).encode() + b"\n"
        os.write(fd, raw)
        self._mine = (os.fstat(fd).st_ino, raw)
        os.close(fd)
        return True

    def _look(self) -> tuple[int, bytes, float] | None:
        try:
            with open(self.path, "rb") as file:
                at = os.fstat(file.fileno())
                return at.st_ino, file.read(), at.st_mtime
        except FileNotFoundError:
            return None

    def _remove_if_stale(self) -> bool:
        seen = self._look()
        if seen is None:
            return False
        reason = why_stale(seen[1], seen[2])
        again = self._look()
        if reason is None or again is None or again[:2] != seen[:2]:
            return False
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return False
        self.stolen.append(reason)
        return True

    def is_mine(self) -> bool:
        seen = self._look()
        return seen is not None and seen[:2] == self._mine

    def release(self) -> None:
        if self.is_mine():
            os.unlink(self.path)


# ── what it is told to do ────────────────────────────────────────────────────────────────────────────────────────────


def append_many(transcript: str, count: int, kind: str = "mirror", pause_ms: float = 0.0) -> None:
    """When told, append lines, each under the lock, each hung off the leaf that it finds there, in two writes with a
    gap.
    """
    say("ready")
    sys.stdin.readline()
    for n in range(count):
        lock = Lock(transcript)
        lock.take()
        line = outsider.line_of(kind, transcript, id=f"theirs-{n}")
        with open(transcript, "ab", buffering=0) as file:
            file.write(line[:10])
            time.sleep(0.002)
            file.write(line[10:])
        lock.release()
        say(f"wrote {n} {','.join(lock.stolen)}".strip())
        time.sleep(pause_ms / 1000)


def hold(transcript: str, hold_ms: int = HOLD_MS, lines: int = 0) -> None:
    """Take the lock, say so, and keep it until told; then release it and say what was there."""
    lock = Lock(transcript, hold_ms)
    lock.take()
    for n in range(lines):
        outsider.append(transcript, "mirror", id=f"held-{n}")
    say(f"held {','.join(lock.stolen)}".strip())
    sys.stdin.readline()
    mine = lock.is_mine()
    lock.release()
    say("released" if mine else "robbed")


def try_for(transcript: str, timeout_s: float) -> None:
    """Wait for the lock so long, and say what came of it."""
    lock = Lock(transcript)
    try:
        lock.take(timeout_s)
    except TimedOutError:
        say("timeout")
        return
    say(f"got {','.join(lock.stolen)}".strip())
    lock.release()


def contend(transcript: str, rounds: int, mark: str) -> None:
    """Go for the lock again and again; inside it, mark the section with an exclusive create for a moment."""
    clashes = 0
    for _ in range(rounds):
        lock = Lock(transcript)
        lock.take()
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            clashes += 1
        else:
            time.sleep(0.002)
            os.unlink(mark)
        lock.release()
    say(f"clashes {clashes}")


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


# ── driving it ───────────────────────────────────────────────────────────────────────────────────────────────────────


class OpenClaw:
    """One such process, while it runs."""

    def __init__(self, act: str, transcript: Path, **how: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", __file__, "openclaw", act, str(transcript), json.dumps(how)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self.process.pid

    def hears(self) -> str:
        """The next thing it says; empty once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def goes_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def ends(self) -> int:
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def openclaw(act: str, transcript: Path, **how: Any) -> Iterator[OpenClaw]:
    """The process, ended with the block."""
    running = OpenClaw(act, transcript, **how)
    try:
        yield running
    finally:
        running.kill()


if __name__ == "__main__":
    globals()[sys.argv[2]](sys.argv[3], **json.loads(sys.argv[4]))
