"""A state directory as a source: nobody lives in it, and nobody opens it meanwhile."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import InputError
from holdfast.store.embedded import schema
from holdfast.store.embedded.state_dir import StateDir, look_at_state_dir, opening


@dataclass(frozen=True, slots=True)
class Folder:
    state: StateDir
    ledger: sqlite3.Connection
    seen: str


@contextmanager
def reading(path: Path) -> Iterator[Folder]:
    """The state, while nobody else can open it.

    Raises: InputError: there is none, or a process lives in it.
    """
    if not (path / "holdfast.json").exists():
        raise InputError(f"no state at {path}")
    with opening(path):
        state = look_at_state_dir(path)
        refuse_living(state)
        place = path / schema.LEDGER_NAME
        with closing(schema.connect(place)) as found:
            found.execute("pragma wal_checkpoint(truncate)")
        seen = _seen(state)
        with closing(schema.connect(place, read_only=True)) as ledger:
            yield Folder(state, ledger, seen)


def refuse_living(state: StateDir) -> None:
    living = state.living() if state.processes.exists() else []
    if living:
        raise InputError(
            f"{len(living)} process(es) use {state.path} now; stop them first (`holdfast stop`), what they do "
            "meanwhile would be missing in the copy"
        )


def transcript_files(state: StateDir) -> list[Path]:
    found = [*state.sessions.glob("*/*"), *(state.path / "archives").glob("*/*")]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _seen(state: StateDir) -> str:
    """Changes when the state does. The ledger is read through (a second per gigabyte); of files, sizes and times."""
    digest = hashlib.sha256()
    with open(state.path / schema.LEDGER_NAME, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    for path in transcript_files(state):
        found = os.stat(path)
        digest.update(f"{path.relative_to(state.path)}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()
