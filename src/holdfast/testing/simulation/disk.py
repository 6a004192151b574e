"""What a power loss leaves of a folder: the files are real, this remembers which of their bytes and names are durable.

Durable is what a sync has promised: of a file the content at its last successful sync, of a folder the names at its
last one. Everything else may be there, be missing, be torn at any byte, read as zeros in whole sectors, or show what
was there before, each file for itself, so that effects of earlier calls may vanish while those of later ones stay.

After a failed sync the system shows pages that it will never write: their range stays undurable, whatever later syncs
say, until it has been written again.

The ledger is SQLite's: its durable state is the database and the log up to the end of the last commit that was synced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

SECTOR = 512
LEDGER = "ledger.sqlite3"
_OF_THE_LEDGER = (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm")


def read_whole(fd: int) -> bytes:
    """All bytes of an open file, also of one that was opened for writing only."""
    size = os.fstat(fd).st_size
    try:
        return os.pread(fd, size, 0)
    except OSError as exc:
        if exc.errno != errno.EBADF:
            raise
    return Path(f"/dev/fd/{fd}").read_bytes()


class Disk:
    """The durable part of everything under `root`. The folders and files there now are durable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._log = os.fspath(root / f"{LEDGER}-wal")
        self._contents: dict[int, bytes] = {}  # by inode
        self._names: dict[Path, dict[str, int]] = {}
        self._lost: dict[int, list[tuple[int, int]]] = {}  # ranges that a failed sync gave up
        self.log_durable = 0  # bytes of the ledger's log
        self.settle()

    def settle(self) -> None:
        """From now on everything that is there is durable."""
        self._contents.clear()
        self._names.clear()
        self._lost.clear()
        for folder, _, names in os.walk(self.root):
            self.folder_synced(Path(folder))
            for name in names:
                if name not in _OF_THE_LEDGER:
                    path = Path(folder, name)
                    self._contents[path.stat().st_ino] = path.read_bytes()
        self.log_durable = self.log_size()

    # ── what the machine reports ─────────────────────────────────────────────────────────────────────────────────────

    def made(self, fd: int) -> None:
        """A new file; its inode's number may have been another one's."""
        inode = os.fstat(fd).st_ino
        self._contents.pop(inode, None)
        self._lost.pop(inode, None)

    def synced(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        content = read_whole(fd)
        for start, end in self._lost.get(inode, ()):
            before = self._contents.get(inode, b"")[start:end].ljust(min(end, len(content)) - start, b"\0")
            content = content[:start] + before[: max(0, len(content) - start)] + content[end:]
        self._contents[inode] = content

    def sync_failed(self, fd: int) -> None:
        """The pages that were waiting are clean now, and not on the disk."""
        inode = os.fstat(fd).st_ino
        content, durable = read_whole(fd), self._contents.get(inode, b"")
        same = next((at for at, (a, b) in enumerate(zip(content, durable, strict=False)) if a != b), len(durable))
        if same < len(content):
            self._lost.setdefault(inode, []).append((same, len(content)))

    def written(self, fd: int, at: int, length: int) -> None:
        """Bytes that are written again are dirty again."""
        inode = os.fstat(fd).st_ino
        if inode in self._lost:
            kept: list[tuple[int, int]] = []
            for start, end in self._lost[inode]:
                kept += [(a, b) for a, b in ((start, min(end, at)), (max(start, at + length), end)) if a < b]
            self._lost[inode] = kept

    def folder_synced(self, folder: Path) -> None:
        with os.scandir(folder) as entries:
            self._names[folder] = {entry.name: entry.inode() for entry in entries}

    def holds(self, text: bytes) -> bool:
        """Whether a transcript, or an answer kept beside one, holds it for good."""
        contents = self._contents
        return any(
            text in contents.get(inode, b"")
            for names in self._names.values()
            for name, inode in names.items()
            if ".jsonl" in name
        )

    def log_size(self) -> int:
        try:
            return os.stat(self._log).st_size
        except FileNotFoundError:
            return 0

    # ── power loss ───────────────────────────────────────────────────────────────────────────────────────────────────

    def lose_power(
        self, random: Random, ledger: bytes, log: bytes, put: Callable[[bytes, bytes], bool] = lambda *_: False
    ) -> None:
        """Leave on the real disk what might be found after a power loss. No process may have anything open.

        Args:
            ledger, log: SQLite's database and its log, as they were before its connections were closed.
            put: puts both in their place and returns True, where SQLite has still connections open.
        """
        folders = {*self._names, *(Path(folder) for folder, _, _ in os.walk(self.root))}  # also those never synced
        for folder in sorted(folders, key=lambda one: (len(one.parts), one)):
            self._lose_names(random, folder)
        for folder, _, names in sorted(os.walk(self.root)):  # a file system's own order is another one elsewhere
            for name in sorted(names):
                if name not in _OF_THE_LEDGER:
                    self._lose_bytes(random, Path(folder, name))
        kept = min(self.log_durable, len(log))
        tail = survivor(random, b"", log[kept:]) if len(log) > kept else b""
        if not put(ledger, log[:kept] + tail):
            self._put_ledger(ledger, log[:kept] + tail)
        self.settle()

    def _lose_names(self, random: Random, folder: Path) -> None:
        if not folder.is_dir():
            return
        durable = self._names.get(folder, {})
        with os.scandir(folder) as entries:
            now = {entry.name: entry for entry in entries}
        for name in sorted(now):
            entry = now[name]
            if name in _OF_THE_LEDGER or name in durable:
                continue
            if random.random() < 0.5:
                _remove(Path(entry.path))
        for name in sorted(durable):
            path, inode = folder / name, durable[name]
            if name in _OF_THE_LEDGER or path.is_dir() or inode not in self._contents:
                continue
            gone = name not in now
            if (gone or now[name].inode() != inode) and random.random() < 0.5:  # the old file is still the one named so
                path.unlink(missing_ok=True)
                path.write_bytes(self._contents[inode])
                path.chmod(0o600)
                self._contents[path.stat().st_ino] = self._contents[inode]

    def _lose_bytes(self, random: Random, path: Path) -> None:
        at = path.lstat()
        now, durable = path.read_bytes(), self._contents.get(at.st_ino, b"")
        after = survivor(random, durable, now) if now != durable else now
        if after != now:
            with path.open("r+b") as file:
                file.write(after)
                file.truncate(len(after))

    def _put_ledger(self, ledger: bytes, log: bytes) -> None:
        (self.root / f"{LEDGER}-shm").unlink(missing_ok=True)
        if ledger or (self.root / LEDGER).exists():
            with (self.root / LEDGER).open("r+b") as file:  # the same inode
                file.write(ledger)
                file.truncate(len(ledger))
        path = self.root / f"{LEDGER}-wal"
        path.unlink(missing_ok=True)
        if log:
            path.write_bytes(log)
            path.chmod(0o600)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for inner in sorted(path.iterdir()):
            _remove(inner)
        path.rmdir()
    else:
        path.unlink()


def survivor(random: Random, durable: bytes, now: bytes) -> bytes:
    """What may be found in a file's place: durable is `durable`, shown was `now`."""
    fate = random.random()
    where, which = random.random(), random.random()  # always drawn, so that later choices do not depend on the fate
    if fate < 0.3:
        return durable
    if fate < 0.5:
        return now
    if now.startswith(durable):
        new = now[len(durable) :]
        if fate < 0.8:
            return durable + new[: int(where * (len(new) + 1))]
        return durable + _with_zeros(new, len(durable), where, which)
    return b"".join(
        (now if Random(f"{where}:{at}").random() < which else durable)[at : at + SECTOR]
        for at in range(0, max(len(now), len(durable)), SECTOR)
    )


def _with_zeros(new: bytes, offset: int, where: float, which: float) -> bytes:
    """The size has grown, some sectors never arrived."""
    out = bytearray(new)
    for at in range(-(offset % SECTOR), len(new), SECTOR):
        if Random(f"{where}:{at}").random() < max(which, 0.2):
            start, end = max(0, at), min(len(new), at + SECTOR)
            out[start:end] = bytes(end - start)
    return bytes(out)
