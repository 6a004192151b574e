"""A copy of a state directory in one file, made while it is in use; and a state directory from such a file.

The ledger is copied first, as of one moment; then the transcripts, each up to its last whole line of a turn that the
ledger knows. So a restored transcript has all that its ledger knows to be durable, and perhaps more lines of the turns
that ran then: an input that the ledger has open and whose final line is there is settled by that line, as after a
crash; any other is run again.

Left out: what belongs to running processes (`LEFT_OUT`), and the gateway's token unless it is asked for.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import sqlite3
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from holdfast import ids
from holdfast.clock import Clock, epoch_ms, iso
from holdfast.errors import InputError, ResourceError
from holdfast.session.lines import read_line
from holdfast.store.embedded import durable, schema
from holdfast.store.embedded.state_dir import FOLDERS, look_at_state_dir, unusable
from holdfast.store.views import Saved
from holdfast.version import __version__

FORMAT = 1
MANIFEST = "MANIFEST.json"
MANIFEST_BYTES_MAX = 256 * 1024 * 1024
LEFT_OUT = frozenset({"processes", "fence", "bells", "gateway.json", "token", schema.RESERVE_NAME})
RESTORED = "restored"
TRIES = 3
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""What file systems without hard links say (exFAT, many shared folders): where backups often lie."""
CHUNK = 1024 * 1024
Progress = Callable[[str, int, int], None]
"""What is copied, bytes so far, bytes in all."""


class ChangedError(Exception):
    """A file became shorter or went away while it was copied."""


class _Known(NamedTuple):
    """How far a transcript is durable, and its newest epoch."""

    end: int
    epoch: int


@dataclass(slots=True)
class _Copy:
    """What is known of the backup that is being made."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    bytes: int = 0


# ── making one ───────────────────────────────────────────────────────────────────────────────────────────────────────


def make_backup(
    state: Path, to: Path, clock: Clock, *, with_token: bool = False, progress: Progress = lambda *_: None
) -> Saved:
    """Copy a state into the new file `to` (mode 0600; compressed if its name ends in `.gz`), which is there whole or
    not at all. The state may be in use; nothing in it is changed.

    Raises:
        InputError: there is something at `to` already, or it lies in the state itself.
        ResourceError: no state, or the disk refused; nothing is left behind.
    """
    state, to = Path(os.path.abspath(state)), Path(os.path.abspath(to))
    marker = look_at_state_dir(state)
    if os.path.lexists(to):
        raise InputError(f"{to} is there already; name another file")
    if to.is_relative_to(state):
        raise InputError(f"{to} lies in the state itself; name a file outside {state}")
    draft = to.with_name(f".{to.name}.{ids.nonce()[:8]}")
    snapshot = draft.with_name(draft.name + ".ledger")
    try:
        for left in range(TRIES - 1, -1, -1):
            try:
                return _try_once(state, marker.store_id, to, draft, snapshot, clock, with_token, progress)
            except ChangedError as changed:
                if not left:
                    raise ResourceError(f"{state} changed too much while it was copied: {changed}; try again") from None
        raise AssertionError("unreachable")
    except OSError as exc:
        raise ResourceError(f"cannot write the backup {to}: {exc.strerror or exc}; nothing is left of it") from exc
    except sqlite3.DatabaseError as exc:
        raise ResourceError(f"cannot copy the ledger of {state}: {exc}") from exc
    finally:
        draft.unlink(missing_ok=True)
        snapshot.unlink(missing_ok=True)


def _try_once(
    state: Path, store: str, to: Path, draft: Path, snapshot: Path, clock: Clock, with_token: bool, progress: Progress
) -> Saved:
    draft.unlink(missing_ok=True)
    snapshot.unlink(missing_ok=True)
    copy, at = _Copy(), iso(clock.now())
    progress("the ledger", 0, 0)
    counts, known = _copy_ledger(state / schema.LEDGER_NAME, snapshot)
    names = sorted(_names(state, copy, with_token))
    total = snapshot.stat().st_size + sum(_size_of(state / name) for name in names)
    with _new_file(draft) as file, _packing(file, to) as tar:
        _add(tar, snapshot, schema.LEDGER_NAME, copy)
        for name in names:
            progress(name, copy.bytes, total)
            try:
                _add(tar, state / name, name, copy, known.get(name))
            except FileNotFoundError:
                if name in known and known[name].end:
                    raise ChangedError(f"{name} went away") from None
        for name, one in known.items():
            if one.end and copy.files.get(name, {"bytes": 0})["bytes"] < one.end:
                raise ChangedError(f"{name} is shorter than it was")
        about = {"format": FORMAT, "release": __version__, "store": store, "at": at, **counts, "files": copy.files}
        _add_bytes(tar, MANIFEST, json.dumps(about, indent=1).encode())
    give_name(draft, to)
    durable.sync_folder(to.parent)
    return Saved(
        str(to), store, at, len(copy.files), copy.bytes, counts["sessions"], counts["open_inputs"],
        counts["undelivered"], tuple(copy.remarks),
    )  # fmt: skip


def give_name(draft: Path, to: Path, link: Callable[[Path, Path], None] = os.link) -> None:
    """Let a whole file have its name, if that is still free.

    Raises: OSError: it is not, or the disk refuses.
    """
    try:
        link(draft, to)
    except OSError as exc:
        if exc.errno not in NO_LINKS:
            raise
        if os.path.lexists(to):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(to)) from exc
        os.rename(draft, to)


def _copy_ledger(ledger: Path, snapshot: Path) -> tuple[dict[str, int], dict[str, _Known]]:
    """The ledger as of one moment, in a file of its own; counts of it, and what it knows of each transcript."""
    if not ledger.exists():
        raise ResourceError(f"{ledger.parent} has no ledger; `holdfast doctor` says what is wrong with it")
    os.close(os.open(snapshot, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    with closing(schema.connect(ledger, read_only=True)) as source, closing(sqlite3.connect(snapshot)) as copied:
        source.backup(copied)  # in one step: as of one moment, and nobody who writes waits for it
        copied.execute("pragma journal_mode=delete")  # no files beside it
    with closing(sqlite3.connect(snapshot)) as found:

        def count(table: str, where: str) -> int:
            return found.execute(f"select count(*) from {table} where {where}").fetchone()[0]  # noqa: S608  # constants

        counts = {
            "sessions": count("sessions", "true"),
            "open_inputs": count("inputs", "state in ('queued', 'running')"),
            "undelivered": count("outbox", "state in ('pending', 'started', 'unknown')"),
        }
        rows = found.execute("select path, synced_end, epoch_number from transcripts").fetchall()
        return counts, {path: _Known(end, epoch) for path, end, epoch in rows}


def _names(state: Path, copy: _Copy, with_token: bool) -> Iterator[str]:
    """Regular files of a state, relative to it."""
    left_out = LEFT_OUT - {"token"} if with_token else LEFT_OUT
    for folder, folders, files in os.walk(state):
        here = Path(folder).relative_to(state)
        if here == Path():
            folders[:] = [name for name in folders if name not in left_out]
            files = [name for name in files if name not in left_out and not _is_process_file(name)]
        for name in (*folders, *files):
            path = Path(folder) / name
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                yield str(here / name)
            elif not stat.S_ISDIR(mode):
                copy.remarks.append(f"{here / name} is no regular file and was left out")


def _is_process_file(name: str) -> bool:
    return name.startswith((".holdfast-", "ledger."))  # `ledger.lock`, and SQLite's own beside the ledger


def _size_of(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _add(tar: tarfile.TarFile, path: Path, name: str, copy: _Copy, known: _Known | None = None) -> None:
    """One file. Of a transcript, which grows, the whole lines of turns that the ledger knows."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(fd, "rb") as file:
        at = os.fstat(fd)
        size = _last_line_end(file, at.st_size) if name.endswith(".jsonl") else at.st_size
        if known is not None and size > known.end:
            size = _end_of_known(file, known, size)
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = size, int(at.st_mtime), stat.S_IMODE(at.st_mode)
        reader = _Hashing(file, size)
        try:
            tar.addfile(info, reader)
        except tarfile.ReadError as short:
            raise ChangedError(f"{name} became shorter") from short
        if reader.left:
            raise ChangedError(f"{name} became shorter")
    copy.files[name] = {"bytes": size, "sha256": reader.digest.hexdigest()}
    copy.bytes += size


def _last_line_end(file: IO[bytes], size: int) -> int:
    """Where the last whole line ends, within the first `size` bytes."""
    end = size
    while end > 0:
        begin = max(0, end - CHUNK)
        file.seek(begin)
        at = file.read(end - begin).rfind(b"\n")
        if at >= 0:
            file.seek(0)
            return begin + at + 1
        end = begin
    file.seek(0)
    return 0


def _end_of_known(file: IO[bytes], known: _Known, size: int) -> int:
    """Where the first line begins that a later turn has written, within the first `size` bytes."""
    end = known.end
    file.seek(end)
    while end < size:
        raw = file.readline(size - end)
        origin = read_line(raw.removesuffix(b"\n")).origin
        if origin is not None and origin.epoch > known.epoch:
            break
        end += len(raw)
    file.seek(0)
    return end


class _Hashing:
    """Reads at most `size` bytes and digests them."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self.left = size
        self.digest = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(self.left if count < 0 else min(count, self.left))
        self.left -= len(data)
        self.digest.update(data)
        return data


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file, mode 0600, whose bytes are durable when it is left."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        yield file
        file.flush()
        durable.sync_data(fd)


@contextmanager
def _packing(file: IO[bytes], to: Path) -> Iterator[tarfile.TarFile]:
    if to.suffix == ".gz":
        import gzip

        with (
            gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, filename="", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            yield tar
    else:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            yield tar


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))


# ── using one ────────────────────────────────────────────────────────────────────────────────────────────────────────


def restore_backup(
    backup: Path, state: Path, clock: Clock, *, hold: bool = True, progress: Progress = lambda *_: None
) -> Saved:
    """Make a state directory from a backup: it is there whole, each file compared with its digest, or not at all.

    Args:
        state: must not be there, or be an empty folder.
        hold: work is held back, so that somebody may look before what was open is run and sent: the state that was
            backed up may have done so itself since. `holdfast recover --release` lets it go on.

    Raises:
        InputError: `state` is in use; the file is no backup, is incomplete, or was changed.
        ResourceError: the disk refused. In either case nothing is left at `state`.
    """
    backup, state = Path(os.path.abspath(backup)), Path(os.path.abspath(state))
    if os.path.lexists(state) and not (state.is_dir() and not state.is_symlink() and not any(state.iterdir())):
        raise InputError(f"{state} is there already; move it away first, or name another with --state")
    draft = state.with_name(f".{state.name}.{ids.nonce()[:8]}")
    try:
        draft.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.mkdir(mode=0o700)
        about, copy = _unpack(backup, draft, progress)
        _check(backup, about, copy)
        _settle_in(draft, about, clock, hold)
        if state.exists():
            state.rmdir()
        os.rename(draft, state)
        durable.sync_folder(state.parent)
    except OSError as exc:
        if exc.filename is not None and Path(exc.filename) == backup:
            raise InputError(f"cannot read {backup}: {exc.strerror}") from exc
        raise unusable(state, exc) from exc
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Saved(
        str(state), about["store"], about["at"], len(copy.files), copy.bytes, about["sessions"],
        about["open_inputs"], about["undelivered"], tuple(copy.remarks),
    )  # fmt: skip


def _unpack(backup: Path, draft: Path, progress: Progress) -> tuple[dict[str, Any], _Copy]:
    """Write out what is in the file, as it comes; what it is said to be stands at its end."""
    copy, about = _Copy(), None
    total = os.path.getsize(backup)
    try:
        with open(backup, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                if about is not None or not member.isreg():
                    raise InputError(f"{backup} is no backup of Holdfast: {member.name!r} does not belong there")
                data = tar.extractfile(member)
                assert data is not None
                if member.name == MANIFEST:
                    about = _read_manifest(backup, data.read(MANIFEST_BYTES_MAX))
                    continue
                progress(member.name, file.tell(), total)
                name = _inside(backup, member.name)
                for folder in reversed(name.parents[:-1]):
                    (draft / folder).mkdir(mode=0o700, exist_ok=True)
                _write_out(draft / name, data, member, copy)
    except (tarfile.TarError, EOFError, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise
        raise InputError(f"{backup} is no backup of Holdfast, or is incomplete: {exc}") from exc
    if about is None:
        raise InputError(
            f"{backup} is incomplete: it has no {MANIFEST} at its end; copy it again, or take an older one"
        )
    return about, copy


def _inside(backup: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or any(part in ("..", ".") for part in path.parts) or "\0" in name:
        raise InputError(f"{backup} is no backup of Holdfast: {name!r} leads out of it")
    return path


def _read_manifest(backup: Path, raw: bytes) -> dict[str, Any]:
    try:
        about = json.loads(raw)
        known = {"format": int, "store": str, "at": str, "files": dict, "sessions": int, "open_inputs": int,
                 "undelivered": int}  # fmt: skip
        if not isinstance(about, dict) or not all(isinstance(about.get(name), kind) for name, kind in known.items()):
            raise ValueError("not a manifest")
    except ValueError as exc:
        raise InputError(f"{backup} is no backup of Holdfast: its {MANIFEST} cannot be read ({exc})") from exc
    if about["format"] > FORMAT:
        raise InputError(f"{backup} was made by a newer Holdfast ({about.get('release')}); upgrade, then restore it")
    return about


def _write_out(path: Path, data: IO[bytes], member: tarfile.TarInfo, copy: _Copy) -> None:
    mode = 0o600 | (member.mode & 0o100)
    digest, size = hashlib.sha256(), 0
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        while chunk := data.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        file.flush()
        durable.sync_data(fd)
        os.utime(fd, (member.mtime, member.mtime))
    copy.files[member.name] = {"bytes": size, "sha256": digest.hexdigest()}
    copy.bytes += size


def _check(backup: Path, about: dict[str, Any], copy: _Copy) -> None:
    """Raises InputError: a file is missing, is too much, or is not what was backed up."""
    for name in sorted(about["files"].keys() | copy.files.keys()):
        if about["files"].get(name) != copy.files.get(name):
            raise InputError(f"{backup} was changed or damaged: {name} is not what was backed up; take another one")
    if schema.LEDGER_NAME not in copy.files:
        raise InputError(f"{backup} is no backup of Holdfast: it has no ledger")


def _leave_sentinel(folder: Path, process: str) -> None:
    if Path(process).name == process and not process.startswith("."):
        os.close(os.open(folder / process, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _settle_in(draft: Path, about: dict[str, Any], clock: Clock, hold: bool) -> None:
    """What a state directory has besides; the hold; and every name durable.

    None of the processes that the ledger knows has ever lived here: each gets a sentinel that nobody holds, which says
    so. Without one nobody could tell, and what they were sending would stand still for two minutes.
    """
    for folder in FOLDERS:
        (draft / folder).mkdir(mode=0o700, exist_ok=True)
    ledger = schema.open_intact(draft / schema.LEDGER_NAME)
    if isinstance(ledger, str):
        raise InputError(f"the ledger in the backup is damaged ({ledger}); take another one")
    try:
        for (process,) in ledger.execute("select name from processes").fetchall():
            _leave_sentinel(draft / "processes", process)
        if hold:
            reason = f"restored from a backup of {about['at']}, and the old state may have gone on since"
            ledger.execute("begin immediate")
            ledger.execute(
                "insert or replace into holds(id, since_ms, reason) values(?,?,?)",
                (RESTORED, epoch_ms(clock.now()), reason),
            )
            ledger.execute("commit")
    finally:
        ledger.close()
    for folder, _, _ in os.walk(draft, topdown=False):
        durable.sync_folder(Path(folder))
