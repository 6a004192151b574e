"""Reading the files of a workspace that stand before conversations: only when they have changed, and none outside it.

A file may be a link to another one of the same workspace (`CLAUDE.md` to `AGENTS.md`); one that leads out is refused
like any other way out. What is read is what the walk of `Workspace` finds, which follows no link.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

from holdfast.context.system_prompt import Found, cut_file
from holdfast.errors import InputError, ResourceError
from holdfast.text import on_one_line
from holdfast.tool.workspace import Workspace

FILES_MAX = 1024
"""Kept in memory, of all workspaces; each at most as long as what is shown of it."""
SETTLED_NS = 2_000_000_000
"""A file that was changed so lately is read again: time stamps are as coarse as this on some file systems."""
log = logging.getLogger("holdfast.context")

Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Kept:
    stamps: tuple[Stamp, Stamp]  # of the name itself, which may be a link, and of the file
    is_settled: bool
    found: Found


class PromptFiles:
    """The files of all agents of a process. One reader may be asked by several turns at once.

    Args:
        now_ns: the clock that files are stamped with.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._alone = Lock()
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self.reads = 0

    async def __call__(self, workspace: str, names: Sequence[str]) -> list[Found]:
        """The files as they are now, in the order of `names`; nothing of a workspace that has no name.

        Never raises for a file: what is wrong with one is said in its place. Makes nothing.
        """
        if not workspace or not names:
            return []
        return await asyncio.to_thread(self.read, workspace, names)

    def read(self, workspace: str, names: Sequence[str]) -> list[Found]:
        """The same, blocking."""
        with self._alone:
            return [self._one(os.path.abspath(workspace), name) for name in names]

    def _one(self, root: str, name: str) -> Found:
        kept = self._kept.get((root, name))
        stamps = _stamps(os.path.join(root, name))
        if stamps is None:
            self._kept.pop((root, name), None)
            return Found(name)
        if kept is not None and kept.is_settled and kept.stamps == stamps:
            return kept.found
        self.reads += 1
        found = _read(root, name)
        if kept is None or kept.found != found:
            _tell(root, found)
        youngest = max(stamps[1][3], stamps[1][4])
        self._kept[root, name] = _Kept(stamps, self._now_ns() - youngest > SETTLED_NS, found)
        self._kept.move_to_end((root, name))
        while len(self._kept) > FILES_MAX:
            self._kept.popitem(last=False)
        return found


def _stamps(path: str) -> tuple[Stamp, Stamp] | None:
    """What changes when a file does; None: there is none, or a link that leads nowhere."""
    try:
        return _stamp(os.lstat(path)), _stamp(os.stat(path))
    except (OSError, ValueError):
        return None


def _stamp(seen: os.stat_result) -> Stamp:
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def _read(root: str, name: str) -> Found:
    try:
        real_root = os.path.realpath(root)
        real = os.path.realpath(os.path.join(root, name)) if os.path.islink(os.path.join(root, name)) else None
        if real is not None and not real.startswith(f"{real_root.rstrip('/')}/"):
            return Found(name, problem="a link that leads out of the workspace")
        return cut_file(name, Workspace(real_root).read(name if real is None else real))
    except (InputError, ResourceError, OSError, ValueError) as refused:
        return Found(name, problem=on_one_line(str(refused))[:300])


def _tell(root: str, found: Found) -> None:
    """Once for each change: whoever wrote the file should know that it is not shown as they wrote it."""
    if found.problem:
        log.warning("%s in %s is not shown to the model: %s", on_one_line(found.name), on_one_line(root), found.problem)
    elif found.left_out:
        log.warning("%s in %s is too long to be shown whole: %d bytes of its middle are left out",
                    on_one_line(found.name), on_one_line(root), found.left_out)  # fmt: skip
