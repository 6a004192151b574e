"""A folder that tools cannot leave: every path is walked from it, one name at a time, on open descriptors.

No link is followed, `..` is refused, and what is opened must be a regular file with one name, so nothing outside is
read or written, whatever somebody renames meanwhile. A file is replaced as a whole: a reader, and whoever finds it
after a crash, sees the old text or the new one.

Source: openat(2), "rationale"; a hard link is a second name that no walk can tell from a file of the folder's own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from holdfast.errors import InputError, ResourceError
from holdfast.ids import nonce
from holdfast.text import on_one_line

READ_BYTES_MAX = 8 * 1024 * 1024
"""Of one file: a text that a model works on. Larger ones are for programs."""
WRITE_BYTES_MAX = 4 * 1024 * 1024
PATH_CHARS_MAX = 1024
ENTRIES_MAX = 1000
DEPTH_MAX = 5
EDIT_WAIT_S = 2.0
"""How long a change waits for another one in the same folder: each takes milliseconds."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_TEMPORARY = ".holdfast-"


@dataclass(frozen=True, slots=True)
class Listed:
    """One name in a folder. `kind`: "file", "folder", "link" or "other"."""

    path: str
    kind: str
    bytes: int


class Workspace:
    """The folder at `root`, made when something is first written into it. All methods block for as long as the disk
    does.

    Every method raises InputError for a path that leads out or to no such thing, ResourceError where the disk refuses.
    """

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def names(self, path: str) -> list[str]:
        """A path taken apart, relative to the folder. An absolute one must begin with it."""
        if "\0" in path or len(path) > PATH_CHARS_MAX:
            raise InputError(f"a path is at most {PATH_CHARS_MAX} characters, without a zero in it")
        try:
            os.fsencode(path)
        except UnicodeEncodeError:
            raise InputError("a path must be text that a file can be named with") from None
        if os.path.isabs(path):
            inside = f"{self.root.rstrip('/')}/"
            if path != self.root and not path.startswith(inside):
                raise InputError(f"{_shown(path)} is outside the workspace; paths are relative to it")
            path = path[len(inside) :]
        names = [name for name in path.split("/") if name not in ("", ".")]
        if ".." in names:
            raise InputError(f"{_shown(path)}: leave out `..`; paths are relative to the workspace")
        return names

    def folder_path(self, path: str) -> str:
        """The absolute path of a folder in it, for a program that is to work there."""
        with self._folder(self.names(path), make=path in ("", ".")):
            return os.path.join(self.root, *self.names(path))

    def read(self, path: str) -> bytes:
        """A file as a whole."""
        *folders, name = self._file_names(path)
        with self._folder(folders) as folder, self._open(folder, name, path) as fd:
            return _read_all(fd, path)

    def write(self, path: str, data: bytes) -> bool:
        """Replace a file, or make it with the folders before it. Returns whether it is new; durable when it returns."""
        if len(data) > WRITE_BYTES_MAX:
            raise InputError(f"{len(data)} bytes are over the limit of {WRITE_BYTES_MAX} for a file")
        *folders, name = self._file_names(path)
        with self._folder(folders, make=True) as folder, _alone(folder):
            there = _stat(folder, name)
            _refuse_unless_file(there, path)
            self._replace(folder, name, data, there)
            return there is None

    def change(self, path: str, old: str, new: str, *, every: bool = False) -> int:
        """Put `new` in the place of `old`, which must be there exactly once unless `every`. Returns how many places."""
        *folders, name = self._file_names(path)
        with self._folder(folders) as folder, _alone(folder):
            with self._open(folder, name, path) as fd:
                there = os.fstat(fd)
                before = _read_all(fd, path)
            text = _text(before, path)
            count = text.count(old) if old else 0
            if not old:
                raise InputError("old: must not be empty; `write` makes a file")
            if count == 0:
                raise InputError(f"{_shown(path)} does not hold this text; read it, and copy the text exactly")
            if count > 1 and not every:
                raise InputError(
                    f"{_shown(path)} holds this text {count} times; take more of what stands around it, or set all"
                )
            size = len(before) + count * (len(new.encode()) - len(old.encode()))
            if size > WRITE_BYTES_MAX:  # told before it is made: a letter of a long file may stand for a long text
                raise InputError(f"the file would have {size} bytes, over the limit of {WRITE_BYTES_MAX}")
            data = text.replace(old, new).encode()
            now = _stat(folder, name)
            if now is None or _identity(now) != _identity(there):
                raise InputError(f"{_shown(path)} was changed by somebody else meanwhile; read it again")
            self._replace(folder, name, data, there)
            return count

    def list(self, path: str = ".", depth: int = 1) -> tuple[list[Listed], bool]:
        """What is in a folder, by name, and whether there is more than was listed. Links are named, not followed."""
        found: list[Listed] = []
        with self._folder(self.names(path), make=path in ("", ".")) as folder:
            is_whole = _list_into(found, folder, "", max(1, min(depth, DEPTH_MAX)))
        return found, not is_whole

    # ── on descriptors ───────────────────────────────────────────────────────────────────────────────────────────────

    def _file_names(self, path: str) -> list[str]:
        names = self.names(path)
        if not names or path.endswith("/"):
            raise InputError(f"{_shown(path)} names a folder, not a file")
        if names[-1].startswith(_TEMPORARY):
            raise InputError(f"names that begin with {_TEMPORARY} are taken")
        return names

    @contextmanager
    def _folder(self, names: list[str], *, make: bool = False) -> Iterator[int]:
        """A folder, open. The root may be a link: whoever runs the gateway has put it there."""
        if make:
            try:
                os.makedirs(self.root, mode=0o700, exist_ok=True)
            except OSError as exc:
                raise _refused(self.root, exc) from exc
        try:
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise InputError("the workspace is empty") from None
        except OSError as exc:
            raise _refused(self.root, exc) from exc
        try:
            for at, name in enumerate(names):
                path = "/".join(names[: at + 1])
                inner = _open_folder(fd, name, path, make=make)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _open(self, folder: int, name: str, path: str) -> Iterator[int]:
        try:
            fd = os.open(name, _FILE, dir_fd=folder)
        except FileNotFoundError:
            raise InputError(f"there is no file {_shown(path)}; `list` shows what there is") from None
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.EMLINK):
                raise InputError(f"{_shown(path)} is a link; links are not followed") from None
            raise _refused(path, exc) from exc
        try:
            found = os.fstat(fd)
            _refuse_unless_file(found, path)
            if found.st_nlink > 1:
                raise InputError(f"{_shown(path)} has a second name (a hard link), which may be outside the workspace")
            yield fd
        finally:
            os.close(fd)

    @staticmethod
    def _replace(folder: int, name: str, data: bytes, before: os.stat_result | None) -> None:
        """A new file in the place of the old one, whose name and permissions it takes over, never its other names."""
        temporary = f"{_TEMPORARY}{nonce()}"
        mode = 0o600 if before is None else stat.S_IMODE(before.st_mode) & 0o777
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600,
                         dir_fd=folder)  # fmt: skip
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(fd, left) :]
                os.fchmod(fd, mode)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except OSError as exc:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise _refused(name, exc) from exc


@contextmanager
def _alone(folder: int) -> Iterator[None]:
    """One change at a time in a folder, among ourselves. A program that holds the lock on purpose costs a refusal."""
    until = time.monotonic() + EDIT_WAIT_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.EACCES):
                raise _refused("the folder", exc) from exc
            if time.monotonic() > until:
                raise InputError("somebody else keeps this folder locked; try again later") from None
            time.sleep(0.01)
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


def _open_folder(fd: int, name: str, path: str, *, make: bool) -> int:
    for _ in range(2):
        try:
            return os.open(name, _FOLDER, dir_fd=fd)
        except FileNotFoundError:
            if not make:
                raise InputError(f"there is no folder {_shown(path)}; `list` shows what there is") from None
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=fd)
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
                raise InputError(f"{_shown(path)} is no folder, or a link; links are not followed") from None
            raise _refused(path, exc) from exc
    raise InputError(f"{_shown(path)} is taken away as soon as it is made")


def _list_into(found: list[Listed], folder: int, before: str, depth: int) -> bool:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError as exc:
        raise _refused(before or ".", exc) from exc
    for name in names:
        if name.startswith(_TEMPORARY):
            continue
        if len(found) >= ENTRIES_MAX:
            return False
        seen = _stat(folder, name)
        if seen is None:
            continue
        path = f"{before}{os.fsencode(name).decode('utf-8', 'replace')}"
        found.append(Listed(path, _kind(seen), seen.st_size))
        if stat.S_ISDIR(seen.st_mode) and depth > 1:
            try:
                inner = os.open(name, _FOLDER, dir_fd=folder)
            except OSError:
                continue
            try:
                if not _list_into(found, inner, f"{path}/", depth - 1):
                    return False
            finally:
                os.close(inner)
    return True


def _kind(seen: os.stat_result) -> str:
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link"))
    return next((kind for is_so, kind in kinds if is_so(seen.st_mode)), "other")


def _stat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _refused(name, exc) from exc


def _refuse_unless_file(seen: os.stat_result | None, path: str) -> None:
    if seen is None or stat.S_ISREG(seen.st_mode):
        return
    if stat.S_ISLNK(seen.st_mode):
        raise InputError(f"{_shown(path)} is a link; links are not followed")
    raise InputError(f"{_shown(path)} is no file")


def _identity(seen: os.stat_result) -> tuple[int, int, int, int]:
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)


def _read_all(fd: int, path: str) -> bytes:
    size = os.fstat(fd).st_size
    if size > READ_BYTES_MAX:
        raise InputError(f"{_shown(path)} has {size} bytes, over the limit of {READ_BYTES_MAX}")
    pieces: list[bytes] = []
    left = READ_BYTES_MAX + 1
    while left > 0:
        try:
            piece = os.read(fd, min(left, 1 << 20))
        except OSError as exc:
            raise _refused(path, exc) from exc
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        left -= len(piece)
    raise InputError(f"{_shown(path)} grows past the limit of {READ_BYTES_MAX} bytes")


def _text(data: bytes, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InputError(f"{_shown(path)} is not UTF-8 text; it can only be replaced as a whole") from None


def _shown(path: str) -> str:
    short = on_one_line(path)
    return repr(short if len(short) <= 120 else f"{short[:120]}…")


def _refused(path: str, exc: OSError) -> InputError | ResourceError:
    """What a refusal of the system is: about the path, or about the machine."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EROFS):
        return ResourceError(f"{_shown(path)}: {exc.strerror}")
    return InputError(f"{_shown(path)}: {exc.strerror or exc}")
