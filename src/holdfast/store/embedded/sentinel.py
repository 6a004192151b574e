"""A process's sign of being alive that the kernel takes away with it.

Each process holds an exclusive `flock` on a randomly named file of its own, never reused. Others probe with a shared
lock: free means dead, at once; missing means unknown. PIDs play no part in the decision; the file's text is for people.
"""

from __future__ import annotations

import fcntl
import os
import socket
import weakref
from contextlib import suppress
from pathlib import Path

from holdfast import ids
from holdfast.errors import ResourceError
from holdfast.recovery.classify import Life
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.record_file import boot_id
from holdfast.store.sql.connection import Connection

_held: weakref.WeakSet[Sentinel] = weakref.WeakSet()


class Sentinel:
    """This process's sentinel. `name` identifies the process in the ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = ids.new_id("p")
        self.pid = os.getpid()
        self._machine = here()
        draft = folder / f".{self.name}"
        self._fd = self._machine.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._machine.try_lock(self._fd)
            self._machine.write(self._fd, f"pid={self.pid} host={socket.gethostname()}\n".encode())
            os.rename(draft, folder / self.name)  # by its name it is never seen unlocked while we live
        except OSError:
            self._machine.close(self._fd)
            draft.unlink(missing_ok=True)
            raise
        _held.add(self)

    def is_ours(self) -> bool:
        """False in a forked child, which owns nothing."""
        return self._fd >= 0 and os.getpid() == self.pid

    def life_of(self, name: str) -> Life:
        """Whether the process behind another sentinel lives. Our own is alive by definition."""
        return "alive" if name == self.name else probe(self.folder, name)

    def close(self, *, keep: bool = False) -> None:
        """Unlock, and remove unless `keep`: an orderly end leaves nothing to probe."""
        if self._fd < 0:
            return
        if not keep:
            with suppress(OSError):  # left behind unlocked, it says that we are dead
                (self.folder / self.name).unlink()
        self._machine.unlock(self._fd)
        self._machine.close(self._fd)
        self._fd = -1

    def forget_after_fork(self) -> None:
        """In a forked child: closed without unlocking, so that the parent's death is seen though the child lives on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _forget_all_after_fork() -> None:
    for sentinel in list(_held):
        sentinel.forget_after_fork()


os.register_at_fork(after_in_child=_forget_all_after_fork)


def probe(folder: Path, name: str) -> Life:
    """Ask the kernel about one sentinel. Reads nothing but the lock.

    Raises:
        ResourceError: the kernel cannot be asked now.
    """
    try:
        fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return "unknown"
    except OSError as exc:  # out of descriptors: nobody is declared dead, or alive, on this account
        raise ResourceError(f"cannot ask whether process {name} lives: {exc.strerror or exc}") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "alive"
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)
        return "dead"
    finally:
        os.close(fd)


def life_by_boot(conn: Connection, process: str) -> Life:
    """Of a process whose sentinel is missing: dead if its boot is over (sentinels are not synced), else unknown."""
    of = conn.execute("select boot from processes where name=?", (process,)).fetchone()
    return "dead" if of is not None and of["boot"] != boot_id() else "unknown"


def describe(folder: Path, name: str) -> str:
    """`pid=123 host=x` for messages, or the bare name. Never used to decide anything."""
    try:
        return (folder / name).read_text(errors="replace").strip() or name
    except OSError:
        return name
