"""What `holdfast doctor --fix` may change around the ledger: files. The ledger itself: `store/sql/repairing.py`."""

from __future__ import annotations

import os
import stat

from holdfast.errors import InputError, ResourceError
from holdfast.store.embedded.core import StoreCore
from holdfast.store.embedded.owned import OwnedTurn
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Job
from holdfast.store.sql.repairing import LedgerRepairing


class Repairing(LedgerRepairing, StoreCore):
    """Needs no owner: nobody owns what these are about, which is what is wrong with it."""

    async def list_session(self, key: str, path: str) -> bool:
        """List a transcript that is there under the key that its name was made of. No byte of it is touched.

        Returns: False: it is listed already, or has gone.

        Raises: InputError: its name was not made of that key.
        """
        if self.state.transcript_path(key) != self.state.path / path:
            raise InputError(f"{path} is not where session {key!r} has its transcript")
        if not (self.state.path / path).exists():
            return False
        now_ms = self.now_ms()

        def run(conn: Connection) -> bool:
            if conn.execute("select 1 from sessions where key=?", (key,)).fetchone() is not None:
                return False
            self.register_session(conn, key, now_ms)
            return True

        return await self.writer.submit(Job(run, durable=True))

    async def narrow_rights(self, name: str) -> bool:
        """Take other users' rights to a file or folder of the state away. False: they have none, or it has gone.

        By its name, never through a descriptor: to close one of the ledger would give up SQLite's locks.

        Raises: ResourceError: it is not ours, a link, or the disk refuses.
        """
        path = self.state.path / name
        try:
            found = os.lstat(path)
            if not found.st_mode & 0o077:
                return False
            if stat.S_ISLNK(found.st_mode):
                raise ResourceError(f"{path} is a link by now; nothing was changed")
            os.chmod(path, stat.S_IMODE(found.st_mode) & 0o700)
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise ResourceError(f"the mode of {path} cannot be changed: {exc.strerror or exc}") from exc
        return True

    async def mend_transcript(self, owned: OwnedTurn) -> list[str]:
        """A thorough claim has done it, with the write lock held."""
        return owned.findings
