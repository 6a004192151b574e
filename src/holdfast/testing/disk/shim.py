"""Building `calls.c` and telling it what to do. Linux, with a C compiler."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

SOURCE = Path(__file__).with_name("calls.c")
WRITES, SYNCS, NAMES, SIZES, OPENS, TIMES, LOGS = 1, 2, 4, 8, 16, 32, 64
"""Kinds of calls; LOGS are writes to SQLite's write-ahead log."""
CHANGES = WRITES | LOGS | SYNCS | NAMES | SIZES | TIMES
"""Everything that changes a file or waits for the disk."""
How = Literal["count", "before", "half", "after", "fail", "short"]
_HOW: dict[How, int] = {"count": 0, "before": 1, "half": 2, "after": 3, "fail": 4, "short": 5}
LOADED = "LD_PRELOAD"


def missing() -> str | None:
    """Why calls cannot be seen here; None if they can."""
    if sys.platform != "linux":
        return "disk calls are seen on Linux only"
    return None if _compiler() else "no C compiler (cc)"


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build() -> Path:
    """The library, built once per version of its source into the system's folder for temporary files."""
    source = SOURCE.read_bytes()
    folder = Path(tempfile.gettempdir()) / f"holdfast-calls-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.is_symlink():
        raise RuntimeError(f"{folder} belongs to somebody else; remove it, or set TMPDIR")
    library = folder / f"{hashlib.sha256(source).hexdigest()[:16]}.so"
    if not library.exists():
        compiler = _compiler()
        assert compiler is not None, missing()
        draft = library.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", draft, SOURCE, "-ldl", "-lpthread"], check=True)
        draft.rename(library)
    return library


def environment() -> dict[str, str]:
    """For a process that is to be seen."""
    return {**os.environ, LOADED: str(build()), "PYTHONPATH": os.pathsep.join(sys.path)}


@cache
def _library() -> ctypes.CDLL:
    """The library inside this very process."""
    library = ctypes.CDLL(os.environ[LOADED])
    library.hf_arm.argtypes = [
        ctypes.c_char_p, ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int
    ]  # fmt: skip
    library.hf_count.restype = ctypes.c_long
    library.hf_note.argtypes = [ctypes.c_char_p]
    return library


def arm(folder: Path, how: How, kinds: int, nth: int, *, error: int = 0, log: int = -1) -> None:
    """From now on the `nth` call of these kinds below `folder` meets its fault.

    Args:
        how: "count" does nothing; "before", "half", "after": killed there; "fail": with `error`; "short": half a write.
        log: a descriptor to which every call is written; -1: none.
    """
    _library().hf_arm(os.fsencode(folder), _HOW[how], kinds, nth, error, log)


@contextmanager
def pause() -> Iterator[None]:
    """Within it calls are written down, and neither counted nor hindered."""
    _library().hf_pause(1)
    try:
        yield
    finally:
        _library().hf_pause(0)


def count() -> int:
    """Calls of the chosen kinds so far."""
    return int(_library().hf_count())


def note(text: str) -> None:
    """Remember something in the log, in its place between the calls."""
    _library().hf_note(text.encode())


@dataclass(frozen=True, slots=True)
class Call:
    """One record of the log.

    kind: "o" opened (`a`: made new, `b`: emptied), "w" written at `a`, "s" synced, "f" sync failed, "t" and "T" cut to
        `a`, "r" renamed, "l" linked, "u" unlinked, "m" folder made, "d" folder removed, "!" a note.
    who: process and handle.
    """

    kind: str
    who: tuple[int, int]
    a: int
    b: int
    x: bytes
    y: bytes


def read_log(data: bytes) -> Iterator[Call]:
    at = 0
    while at + 33 <= len(data):
        kind = chr(data[at])
        pid, handle = (
            int.from_bytes(data[at + 1 : at + 5], sys.byteorder),
            int.from_bytes(data[at + 5 : at + 9], sys.byteorder),
        )
        a = int.from_bytes(data[at + 9 : at + 17], sys.byteorder, signed=True)
        b = int.from_bytes(data[at + 17 : at + 25], sys.byteorder, signed=True)
        xn, yn = (
            int.from_bytes(data[at + 25 : at + 29], sys.byteorder),
            int.from_bytes(data[at + 29 : at + 33], sys.byteorder),
        )
        x, y = data[at + 33 : at + 33 + xn], data[at + 33 + xn : at + 33 + xn + yn]
        at += 33 + xn + yn
        yield Call(kind, (pid, handle), a, b, x, y)
