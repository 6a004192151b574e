"""Where runs take place, one after the other: a folder in memory, and a ledger that is not opened anew for each."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from random import Random
from types import TracebackType

import holdfast
from holdfast import ids
from holdfast.testing.simulation.disk import LEDGER
from holdfast.testing.simulation.ledgers import Ledgers

Layout = list[tuple[str, int, bytes | None]]
"""Of a folder: every path below it, its mode, its content (None: a folder)."""
_templates: list[Layout] = []


def fast_folder() -> Path | None:
    """A folder in memory; None: the system's own for temporary files."""
    memory = Path("/dev/shm")  # a fresh folder is made in it, mode 0700
    return memory if os.access(memory, os.W_OK) else None


class Ground:
    """A folder for one run at a time. Between two runs in a state that was laid out, the ledger's file stays where it
    is and gets its first bytes back, since connections to it are worth keeping (`ledgers.py`); all else is made anew.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: where it is made; None: in memory where there is such a thing."""
        self.root = Path(tempfile.mkdtemp(prefix="hf-sim-", dir=folder or fast_folder()))
        self.kept, self.made = self.root / "kept", self.root / "made"
        self.kept.mkdir()
        self._kept_ledgers, self._made_ledgers = Ledgers(), Ledgers()

    def lay_out(self) -> tuple[Path, Ledgers]:
        """A state directory as one that was opened and closed in order."""
        layout, state = _template(self.root), self.kept / "state"
        ledger = next(content for name, _, content in layout if name == LEDGER)
        assert ledger is not None
        has_ledger = self._kept_ledgers.begin_anew(state, ledger)
        if not has_ledger:
            self._kept_ledgers.close()
            shutil.rmtree(state, ignore_errors=True)
            state.mkdir(mode=0o700)
        else:
            _empty(state)
        for name, mode, content in layout:
            if content is None:
                os.mkdir(f"{state}/{name}", mode)
            elif name != LEDGER or not has_ledger:
                _write(f"{state}/{name}", mode, content)
        return state, self._kept_ledgers

    def clear(self) -> tuple[Path, Ledgers]:
        """A state directory with nothing in it: its making is part of the run."""
        self._made_ledgers.close()
        shutil.rmtree(self.made, ignore_errors=True)
        state = self.made / "state"
        state.mkdir(mode=0o700, parents=True)
        return state, self._made_ledgers

    def close(self) -> None:
        """Remove all of it."""
        self._kept_ledgers.close()
        self._made_ledgers.close()
        shutil.rmtree(self.root)

    def __enter__(self) -> Ground:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _empty(state: Path) -> None:
    """But for the ledger's own files."""
    with os.scandir(state) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.name not in (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm"):
                os.unlink(entry.path)


def _write(path: str, mode: int, content: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


class _FixedChance(ids.Chance):
    """The same in every process, so that a seed means the same there."""

    def __init__(self) -> None:
        self._random = Random(0)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def now_ms(self) -> int:
        return 1_767_225_600_000


def _template(where: Path) -> Layout:
    """A state directory as one that was opened and closed in order, made once per process of the machine."""
    if _templates:
        return _templates[0]
    state = where / "template"

    async def make() -> None:
        async with holdfast.open(state):
            pass

    try:
        with ids.drawn_from(_FixedChance()):  # timers are spread by the store's id
            asyncio.run(make())
        found = sorted(Path(folder, name) for folder, inner, names in os.walk(state) for name in (*inner, *names))
        _templates.append(
            [
                (str(one.relative_to(state)), one.stat().st_mode & 0o777, None if one.is_dir() else one.read_bytes())
                for one in found
            ]
        )
    finally:
        shutil.rmtree(state)
    return _templates[0]
