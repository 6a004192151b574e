"""OpenClaw's lock file of one transcript: making it, waiting for it, taking over a stale one, removing our own.

Taken after the kernel lock and released before it, in the same holding of about a millisecond; never while a model
streams. What a file means is decided in `session/lock_file.py`.

Two rules make it safer than removing what is stale. **Nothing of anybody else's is ever removed**: a stale file is
taken over by writing our text into that very file (whatever has its name by then is left alone), and only then is it
ours to remove. And what was taken over counts only if it is still in place a moment later, since an OpenClaw that had
judged the old text may be about to remove it. A file of ours is compared, inode and bytes, before each write to the
transcript and before it is removed.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from holdfast.clock import SystemClock, epoch_ms
from holdfast.errors import ConfigError, ResourceError, SessionWriteLockStaleError
from holdfast.session.lock_file import (
    DAMAGED_GRACE_MS,
    MAX_HOLD_MS_MAX,
    STALE_MS,
    TEXT_BYTES_MAX,
    Asker,
    Finding,
    ProcessFacts,
    judge,
    looks_like_openclaw,
    read_lock,
    write_lock,
)
from holdfast.store.embedded.faults import Faults, no_faults
from holdfast.store.embedded.kernel_lock import describe_process
from holdfast.store.embedded.machine import here

log = logging.getLogger("holdfast.store")

SUFFIX = ".lock"
POLL_S = 0.01
"""How often a waiter looks. OpenClaw looks every 50 ms, so whoever waits here is not starved by it."""
SETTLE_S = 0.02
"""How long a lock that was taken over must stay in place: OpenClaw removes a file some 0.1 ms after judging it."""
NOT_TAKEN_FOR_OPENCLAW = (
    'session.lock_protocol = "openclaw": OpenClaw respects a lock only of a process whose command line names openclaw, '
    "and would steal those of this one; start it as `python -X openclaw …` (Python itself ignores that), or with any "
    "argument that is exactly `openclaw`"
)
_PID_MAX = 2**31 - 1

Processes = Callable[[int], ProcessFacts]


# ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def facts_of(pid: int) -> ProcessFacts:
    """What the system says of a process. As for OpenClaw, one that may not be signalled counts as dead (it is another
    user's, who could not open these files), and so does a zombie.
    """
    if pid > _PID_MAX:
        return ProcessFacts(alive=False)
    try:
        os.kill(pid, 0)
    except OSError:
        return ProcessFacts(alive=False)
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return ProcessFacts(alive=True)  # not Linux, or it went in this instant: the next look tells
    return ProcessFacts(fields[0] != b"Z", int(fields[19]), _arguments(pid))


def _arguments(pid: int) -> tuple[str, ...] | None:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    return tuple(os.fsdecode(one) for one in raw.removesuffix(b"\0").split(b"\0")) if raw else None


@cache
def _starttime_of_this(pid: int, processes: Processes) -> int | None:
    return processes(pid).starttime


@dataclass(frozen=True, slots=True)
class LockFiles:
    """How this process takes OpenClaw's lock files.

    Args:
        stale_ms: OpenClaw's `session.writeLock.staleMs`; both programs should have the same.
        max_hold_ms: written into each file: past it others take it over. We hold one for about a millisecond.
        processes: who knows about process ids; another one in tests.
    """

    stale_ms: int = STALE_MS
    max_hold_ms: int = 300_000
    processes: Processes = facts_of

    def refuse_if_not_taken_for_openclaw(self) -> None:
        """Raises ConfigError where every OpenClaw would steal our lock files at once."""
        arguments = self.processes(os.getpid()).arguments
        if arguments and not looks_like_openclaw(arguments):
            raise ConfigError([NOT_TAKEN_FOR_OPENCLAW])


def lock_path_of(transcript: Path) -> Path:
    """Where OpenClaw has the lock file: its folder without links, its own name as it is."""
    return Path(os.path.realpath(transcript.parent)) / f"{transcript.name}{SUFFIX}"


# ── one lock file ────────────────────────────────────────────────────────────────────────────────────────────────────


class _Held(NamedTuple):
    """A lock file that is ours: the open file (so that its inode is nobody else's meanwhile) and what it says."""

    fd: int
    dev: int
    ino: int
    raw: bytes
    pid: int


_held: dict[str, OpenClawLock] = {}
"""By path: every lock file that this process holds, through whichever handle."""
_filling: set[str] = set()
"""Paths at which this process is just making one: another thread that tidies must not take it for an orphan."""
_changing = threading.RLock()  # `_held`, and who releases


class OpenClawLock:
    """The lock file of one transcript. One thread at a time: whoever holds the kernel lock, or tidies."""

    def __init__(self, transcript: Path, terms: LockFiles, faults: Faults = no_faults) -> None:
        self.path = lock_path_of(transcript)
        self._path_text = str(self.path)
        self._terms = terms
        self._faults = faults
        self._mine: _Held | None = None
        self._obstacle = ""  # why a stale file could not be taken over, in words

    # ── taking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def try_take(self) -> bool:
        """Make the file if there is none; never waits, judges nothing. False: it is there.

        Raises:
            ResourceError: the disk refuses; nothing is left behind.
        """
        _filling.add(self._path_text)
        try:
            return self._make()
        finally:
            _filling.discard(self._path_text)

    def _make(self) -> bool:
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                fd = here().open(self.path, flags, 0o600)
            except FileNotFoundError:  # somebody removed the folder; the transcript will be begun anew in it
                self.path.parent.mkdir(mode=0o700, exist_ok=True)
                fd = here().open(self.path, flags, 0o600)
        except FileExistsError:
            return False
        except OSError as exc:
            raise ResourceError(f"cannot make lock file {self.path}: {exc.strerror}") from exc
        self._faults("lock_file.after_create")
        at = os.fstat(fd)
        mine = _Held(fd, at.st_dev, at.st_ino, self._text(), os.getpid())
        try:
            written = here().write(fd, mine.raw)
            if written != len(mine.raw):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as exc:
            if self._is_in_place(mine):
                self.path.unlink(missing_ok=True)
            here().close(fd)
            raise ResourceError(f"cannot write lock file {self.path}: {exc.strerror}") from exc
        self._note(mine)
        self._faults("lock_file.after_fill")
        return True

    def take(self, wait_s: float) -> bool:
        """Wait for the file, on a thread that may block; one that its rules call stale is taken over.

        Returns: False if somebody still held it after `wait_s`.

        Raises:
            SessionWriteLockStaleError: it is stale, and could not be taken over. ResourceError: as `try_take`.
        """
        pause, left_s = here().event(), wait_s
        while not (self.try_take() or self._take_over(lambda finding: finding.may_be_taken_over)):
            if left_s <= 0:
                self._raise_if_stale()
                return False
            pause.wait(min(POLL_S, left_s))
            left_s -= POLL_S
        return True

    def _take_over(self, may: Callable[[Finding], bool]) -> bool:
        """Make a stale file ours by writing into it. False: it is not stale, or somebody else was quicker."""
        try:
            fd = here().open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        except OSError as exc:
            self._obstacle = exc.strerror or str(exc)
            return False
        mine = None
        try:
            mine = self._written_over(fd, may)
        except OSError as exc:
            self._obstacle = exc.strerror or str(exc)
        finally:
            if mine is None:
                here().close(fd)
        if mine is not None:
            self._note(mine)
        return mine is not None

    def _written_over(self, fd: int, may: Callable[[Finding], bool]) -> _Held | None:
        at = os.fstat(fd)
        raw = os.pread(fd, TEXT_BYTES_MAX, 0)
        finding = self._judge(raw, at)
        if not stat.S_ISREG(at.st_mode) or (at.st_nlink > 1 and finding.text.pid is None):
            self._obstacle = "it is no lock file"  # a second name of something else is not written into
            return None
        if not may(finding):
            return None
        mine = _Held(fd, at.st_dev, at.st_ino, self._text(len(raw)), os.getpid())
        if not here().try_lock(fd):  # among processes of Holdfast only one takes over
            return None
        if os.pread(fd, TEXT_BYTES_MAX, 0) != raw or not self._is_in_place(mine):
            return None
        here().pwrite(fd, mine.raw, 0)
        if at.st_size > len(mine.raw):
            here().truncate(fd, len(mine.raw))
        self._faults("lock_file.after_take_over")
        here().event().wait(SETTLE_S)
        if not self._is_ours(mine):
            return None
        log.warning("lock file %s: stale lock reclaimed (%s) from %s", self.path, ", ".join(finding.reasons),
                    finding.owner)  # fmt: skip
        return mine

    def _raise_if_stale(self) -> None:
        finding = self.find()
        if finding.may_be_taken_over and self._obstacle:
            raise SessionWriteLockStaleError(
                self._path_text, f"{finding.owner} ({self._obstacle})", tuple(finding.reasons)
            )

    def _text(self, length: int = 0) -> bytes:
        pid = os.getpid()
        return write_lock(
            pid, _now_ms(), min(self._terms.max_hold_ms, MAX_HOLD_MS_MAX),
            _starttime_of_this(pid, self._terms.processes), length=length,
        )  # fmt: skip

    # ── holding and giving back ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_held(self) -> bool:
        """Whether we have taken it and not released it. Whether it was stolen since is for `is_ours` to say."""
        return self._mine is not None

    def is_ours(self) -> bool:
        """Whether the file in place is still the one that we have taken, saying what we wrote."""
        mine = self._mine
        return mine is not None and self._is_ours(mine)

    def release(self) -> None:
        """Remove the file if it is ours still. Never raises; a second time, or in a forked child, does nothing."""
        refused = self._give_back()
        if refused:
            log.error("lock file %s could not be removed: %s", self.path, refused)

    def _give_back(self) -> str:
        """Release it; why the file could not be removed, in words, or an empty text."""
        with _changing:
            mine, self._mine = self._mine, None
            if mine is None or mine.pid != os.getpid():
                return ""
            try:
                self._faults("lock_file.before_release")
                if self._is_ours(mine):
                    os.unlink(self._path_text)
                else:
                    log.warning("lock file %s was taken by %s while we held it", self.path, self.find().owner)
                return ""
            except OSError as exc:
                return f"{exc.strerror}; {self._emptied(mine)}"
            finally:
                here().close(mine.fd)
                if _held.get(self._path_text) is self:
                    del _held[self._path_text]

    def _emptied(self, mine: _Held) -> str:
        """A file that must stay names nobody any more: else all others would wait for us until it is stale."""
        try:
            here().truncate(mine.fd, 0)
        except OSError as exc:
            return f"nor emptied ({exc.strerror}): remove it, or others wait until it is stale"
        return f"it is emptied, and whoever waits for it takes it over after {DAMAGED_GRACE_MS // 1000} s"

    def _note(self, mine: _Held) -> None:
        with _changing:
            self._mine = mine
            self._obstacle = ""
            _held[self._path_text] = self

    def _is_ours(self, mine: _Held) -> bool:
        return self._is_in_place(mine) and os.pread(mine.fd, TEXT_BYTES_MAX, 0) == mine.raw

    def _is_in_place(self, mine: _Held) -> bool:
        try:
            at = os.lstat(self._path_text)
        except OSError:
            return False
        return (at.st_dev, at.st_ino) == (mine.dev, mine.ino)

    def forget_after_fork(self) -> None:
        mine, self._mine = self._mine, None
        if mine is not None:
            os.close(mine.fd)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, *, respect_max_hold: bool | None = None) -> Finding:
        """What the file means at this moment. What cannot be read counts as held by nobody knows whom."""
        try:
            fd = here().open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return Finding("free")
        except OSError:
            return Finding("held")
        try:
            return self._judge(os.pread(fd, TEXT_BYTES_MAX, 0), os.fstat(fd), respect_max_hold)
        except OSError:
            return Finding("held")
        finally:
            here().close(fd)

    def _judge(self, raw: bytes, at: os.stat_result, respect_max_hold: bool | None = None) -> Finding:
        text = read_lock(raw)
        try:
            facts = self._terms.processes(text.pid) if text.pid is not None else None
        except (OSError, ValueError):  # nobody can say: nothing is taken from anybody for that
            return Finding("held", (), text)
        return judge(
            raw, facts, Asker(os.getpid(), self._path_text in _held or self._path_text in _filling), now_ms=_now_ms(),
            mtime_ms=at.st_mtime_ns // 1_000_000, stale_ms=self._terms.stale_ms, respect_max_hold=respect_max_hold,
        )  # fmt: skip

    def describe(self) -> str:
        """Who has the file, in words; empty if nobody has."""
        finding = self.find()
        if finding.kind == "free":
            return ""
        pid = finding.text.pid
        return f"lock file {self.path} of {'an unknown process' if pid is None else describe_process(pid)}"

    # ── tidying ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def sweep(self, *, remove: bool = True) -> Swept:
        """What it means to whoever tidies, and whether it was removed: only a dead owner's, or one that says nothing
        and is old. Never raises.
        """
        finding = self.find(respect_max_hold=False)
        if not remove or not finding.may_be_swept:
            return Swept(self.path, finding)
        if not self._take_over(lambda found: found.may_be_swept):
            return Swept(self.path, finding, obstacle=self._obstacle)
        refused = self._give_back()
        return Swept(self.path, finding, not os.path.lexists(self._path_text), refused)


class Swept(NamedTuple):
    """What became of a lock file. `obstacle`: why it could not be removed although it may be, in words."""

    path: Path
    finding: Finding
    removed: bool = False
    obstacle: str = ""


def sweep_lock_files(
    folder: Path, terms: LockFiles, *, remove: bool = True, faults: Faults = no_faults
) -> Iterator[Swept]:
    """Every lock file of a transcript in a folder, in the order of their names. One that cannot be removed does not
    keep the others from it.
    """
    for path in sorted(folder.glob(f"*.jsonl{SUFFIX}")):
        lock = OpenClawLock(path.with_name(path.name.removesuffix(SUFFIX)), terms, faults)
        yield lock.sweep(remove=remove)


def _now_ms() -> int:
    """By the system's clock, whatever clock the store was given: another program reads it."""
    return epoch_ms(SystemClock().now())


# ── the end of a process ─────────────────────────────────────────────────────────────────────────────────────────────


def release_all() -> None:
    """Remove every lock file that this process holds: at its exit, when a thread may be cut off in a holding."""
    for lock in list(_held.values()):
        lock.release()


def _forget_all_after_fork() -> None:
    """In a forked child: they are the parent's."""
    global _changing
    _changing = threading.RLock()
    for lock in list(_held.values()):
        lock.forget_after_fork()
    _held.clear()


atexit.register(release_all)
os.register_at_fork(after_in_child=_forget_all_after_fork)
