"""Lock files that dead writers left beside transcripts: looked for when a state is opened, and while a process runs.

Only with `lock_protocol = "openclaw"`. Whose file may be removed is decided in `session/lock_file.py`, how it is done
in `openclaw_lock.py`; here is which folders are looked into, and what of it is told.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.store.embedded.faults import Faults

if TYPE_CHECKING:
    from holdfast.store.embedded.openclaw_lock import LockFiles

log = logging.getLogger("holdfast.store")


class LockFileSweep:
    """The sweeps of one process. One at a time, on a thread that may block (20 ms for each file that is removed)."""

    def __init__(self, sessions: Path, terms: LockFiles | None, faults: Faults) -> None:
        self._sessions = sessions
        self._terms = terms
        self._faults = faults
        self._told: frozenset[str] = frozenset()  # what the last sweep could not do: told once, not each minute

    def sweep(self) -> int:
        """Remove the lock files of the dead; how many. What cannot be removed, or looked into, is told in the log and
        keeps nothing else from it; the next sweep tries again. Never raises what the disk refuses.
        """
        if self._terms is None:
            return 0
        from holdfast.store.embedded.openclaw_lock import sweep_lock_files

        gone, failed = 0, set[str]()
        for folder in self._folders(failed):
            for one in sweep_lock_files(folder, self._terms, faults=self._faults):
                why = ", ".join(one.finding.reasons)
                if one.removed:
                    gone += 1
                    log.info("lock file %s was removed (%s)", one.path, why)
                elif one.obstacle:
                    what = f"lock file {one.path} could not be removed: {one.obstacle} (stale: {why})"
                    self._tell(failed, str(one.path), what)
        self._told = frozenset(failed)
        return gone

    def _folders(self, failed: set[str]) -> list[Path]:
        try:
            return sorted(one for one in self._sessions.iterdir() if one.is_dir())
        except OSError as exc:
            what = f"cannot look for lock files in {self._sessions}: {exc.strerror}"
            self._tell(failed, str(self._sessions), what)
            return []

    def _tell(self, failed: set[str], what: str, text: str) -> None:
        failed.add(what)
        if what not in self._told:
            log.error("%s", text)
