"""The state directory: making it, refusing what cannot be trusted, and naming transcripts inside it."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast import ids
from holdfast.errors import ResourceError, StateVersionError, TranscriptFormatError
from holdfast.session.key import file_stem, parse_key
from holdfast.store.embedded import durable, schema
from holdfast.store.embedded.kernel_lock import KernelLock
from holdfast.store.embedded.machine import here
from holdfast.store.embedded.sentinel import probe

FORMAT = 1
FOLDERS = ("processes", "sessions", "fence")
_SHARED = """
nfs nfs4 cifs smb3 smbfs 9p virtiofs vboxsf vmhgfs fuse.sshfs fuse.vmhgfs-fuse fuse.grpcfuse fuse.glusterfs afs ceph
fuse.ceph gfs2 ocfs2 lustre beegfs glusterfs davfs fuse.davfs2 fuse.s3fs fuse.rclone fuse.gcsfuse osxfs"""
SHARED_FILE_SYSTEMS = frozenset(_SHARED.split())
"""Where kernel locks or time stamps do not hold between machines, or between a guest and its host."""


@dataclass(frozen=True, slots=True)
class StateDir:
    """An opened state directory. `store_id` names it in every line it writes. `ledger`: the connection with which the
    ledger was checked, for whoever opens it next: closing it first would have SQLite remove and make its log anew.
    """

    path: Path
    store_id: str
    findings: tuple[str, ...] = ()
    ledger: sqlite3.Connection | None = None

    @property
    def processes(self) -> Path:
        return self.path / "processes"

    @property
    def fence(self) -> Path:
        return self.path / "fence"

    @property
    def sessions(self) -> Path:
        return self.path / "sessions"

    def transcript_path(self, key: str) -> Path:
        """Where a session key's transcript is made: two keys never share one by accident."""
        return self.path / "sessions" / file_stem(f"agent:{parse_key(key).agent}") / f"{file_stem(key)}.jsonl"

    def canonical(self, path: Path) -> Path:
        """The file that a path stands for. A symlink is followed only if it stays inside.

        Raises:
            TranscriptFormatError: a link out of the state directory, a directory, a pipe or a device.
        """
        real = Path(os.path.realpath(path))
        if real != path and not real.is_relative_to(os.path.realpath(self.path)):
            raise TranscriptFormatError(f"{path} is a link to {real}, outside the state directory; it is not followed")
        if real.exists() and not stat.S_ISREG(os.stat(real).st_mode):
            raise TranscriptFormatError(f"{real} is not a regular file; move it away")
        return real

    def living(self) -> list[str]:
        """Sentinels that some process holds now."""
        return [name for name in sorted(os.listdir(self.processes)) if probe(self.processes, name) == "alive"]


OPENING_S = 60.0


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """While one process decides whether the state is whole and who lives in it, no other does.

    Raises:
        ResourceError: the folder cannot be made, or somebody has been opening it for a minute.
    """
    if sys.platform == "win32":
        raise ResourceError("the embedded store needs Linux or macOS; on Windows run it inside WSL")
    try:
        if not path.exists():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.sync_folder(path.parent)
        fd = here().open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise unusable(path, exc) from exc
    lock = KernelLock(fd)
    try:
        if not lock.acquire(OPENING_S):
            raise ResourceError(
                f"another process has been opening {path} for {OPENING_S:.0f} s; if it is stopped, continue or end it"
            )
        yield
    finally:
        lock.close()
        here().close(fd)


def open_state_dir(path: Path) -> StateDir:
    """Open a state directory that exists, mode 0700; an empty one is filled. Within `opening`.

    Raises:
        StateVersionError: written by a newer release; nothing was touched.
        ResourceError: read-only, not a directory, on a shared file system, or its ledger is damaged while in use.
    """
    path = Path(os.path.abspath(path))
    try:
        _refuse_shared(path)
        store_id = _store_id(path)
        os.chmod(path, 0o700)
        missing = [folder for folder in FOLDERS if not (path / folder).exists()]
        for folder in missing:
            (path / folder).mkdir(mode=0o700, exist_ok=True)
        if missing:
            durable.sync_folder(path)
        state = StateDir(path, store_id)
        ledger, findings = _open_or_set_aside_ledger(state)
        return StateDir(path, store_id, tuple(findings), ledger)
    except OSError as exc:
        raise unusable(path, exc) from exc


def look_at_state_dir(path: Path) -> StateDir:
    """A state directory as it is, for a reader: nothing is made, mended or refused but what cannot be read.

    Raises:
        StateVersionError: written by a newer release. ResourceError: not a state directory, or not readable.
    """
    path = Path(os.path.abspath(path))
    try:
        return StateDir(path, _read_marker(path / "holdfast.json"))
    except FileNotFoundError:
        raise ResourceError(f"{path} is no state directory (it has no holdfast.json)") from None
    except OSError as exc:
        raise unusable(path, exc) from exc


def unusable(path: Path, exc: OSError) -> ResourceError:
    """What to tell whoever wanted to open it."""
    return ResourceError(
        f"cannot use {path} as a state directory: {exc.strerror or exc}; "
        "choose another with --state, or mend its permissions"
    )


def _store_id(path: Path) -> str:
    """Read the marker, or write it. A newer format is refused before anything else is touched."""
    marker = path / "holdfast.json"
    try:
        return _read_marker(marker)
    except FileNotFoundError:
        return _new_marker(path, marker)


def _read_marker(marker: Path) -> str:
    """Raises FileNotFoundError, ResourceError, StateVersionError."""
    try:
        found = json.loads(marker.read_text())
        if (
            not isinstance(found, dict)
            or not isinstance(found.get("format"), int)
            or not isinstance(found.get("store"), str)
        ):
            raise ValueError("not a marker")
    except ValueError as exc:
        raise ResourceError(f"{marker} is not readable as the marker of a state directory ({exc}); restore it") from exc
    if found["format"] > FORMAT:
        raise StateVersionError(
            f"{marker.parent} was written by a newer Holdfast (format {found['format']}, this release knows {FORMAT}); "
            "upgrade, or point --state elsewhere. Nothing was touched."
        )
    return found["store"]


def _new_marker(path: Path, marker: Path) -> str:
    store_id = _store_of_ledger(path) or ids.new_id("s")
    draft = path / f".holdfast-{ids.nonce()[:8]}"
    fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        durable.write_all(fd, json.dumps({"format": FORMAT, "store": store_id}).encode() + b"\n")
        durable.sync_data(fd)
    finally:
        os.close(fd)
    try:
        os.link(draft, marker)  # fails if another process was faster, whose marker then counts
    except FileExistsError:
        return _store_id(path)
    finally:
        draft.unlink()
    durable.sync_folder(path)
    return store_id


def _store_of_ledger(path: Path) -> str | None:
    """A lost marker is taken from the ledger, so that epochs and origins go on."""
    ledger = path / schema.LEDGER_NAME
    connection = schema.open_intact(ledger) if ledger.exists() else None
    if connection is None or isinstance(connection, str):
        return None
    try:
        row = connection.execute("select value from meta where key='store'").fetchone()
        return row[0] if row else None
    finally:
        connection.close()


def _open_or_set_aside_ledger(state: StateDir) -> tuple[sqlite3.Connection | None, list[str]]:
    """A ledger that is missing or damaged is set aside and rebuilt only when nobody lives here; until then: refused.

    Returns: a connection to one that is whole, and what was found, in words for people.
    """
    ledger = state.path / schema.LEDGER_NAME
    size = ledger.stat().st_size if ledger.exists() else -1
    transcripts = list((state.path / "sessions").glob("*/*.jsonl")) if size <= 0 else []
    used = bool(transcripts) or (state.path / schema.RESERVE_NAME).exists()  # the reserve is made after the ledger
    if size <= 0 and not used:
        return None, []  # new, or its making was interrupted
    fault = "missing" if size < 0 else schema.open_intact(ledger)
    if not isinstance(fault, str):
        return fault, []
    living = state.living()
    if living:
        raise ResourceError(
            f"ledger {ledger} is {fault}, and {len(living)} process(es) still use this state; "
            "stop them, then open it again"
        )
    findings = []
    if ledger.exists():
        mark = ids.nonce()[:12]
        for name in sorted(state.path.glob(f"{schema.LEDGER_NAME}*")):
            if ".damaged-" not in name.name:
                os.rename(name, name.with_name(f"{name.name}.damaged-{mark}"))
        durable.sync_folder(state.path)
        findings.append(f"the ledger was damaged ({fault}) and set aside as {schema.LEDGER_NAME}.damaged-{mark}")
    else:
        findings.append(f"the ledger was missing; there are {len(transcripts)} transcript(s)")
    findings.append(
        "a new ledger was begun: conversations are kept, but which accepted inputs were still open, which keys were "
        "used and what was delivered cannot be known; senders who got no answer should send again"
    )
    return None, findings


def _refuse_shared(path: Path) -> None:
    """Network and shared-host mounts are refused, with the reason."""
    kind = file_system_of(path)
    if kind in SHARED_FILE_SYSTEMS:
        raise ResourceError(
            f"{path} is on a {kind} file system, where locks and time stamps cannot be trusted between machines; "
            "use a local disk, or PostgreSQL (--state postgres://…)"
        )


def file_system_of(path: Path) -> str:
    """Type of the file system that holds `path`, "" where the system does not tell."""
    mounts = here().mounts()
    best, kind = "", ""
    real = os.path.realpath(path) if mounts else ""
    for mount in mounts:
        left, _, right = mount.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind
