"""The embedded store: transcripts as files, the ledger as one SQLite file, any number of processes on one machine.

Its parts are layers over `core.py`: `claiming.py` (read it first), `recovering.py`, `writing.py`, `ending.py`,
`sharing.py`, `delivering.py`, `marking.py`, `reading.py`, `remembering.py`, `timing.py`, `approving.py`, `toolwork.py`,
`gating.py`, `browsing.py`, `accounting.py`, `tidying.py`, `repairing.py`. Waiting for a transcript is in `waiting.py`,
the fence in `holding.py`, what a new owner starts from in `baseline.py`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from holdfast.clock import Clock
from holdfast.inbound.event import Admission, InboundEvent
from holdfast.lane.queue import PLAIN, QueueSettings
from holdfast.session.key import validate_key
from holdfast.store.embedded.claiming import Claiming
from holdfast.store.embedded.core import StoreOptions
from holdfast.store.embedded.ending import Ending
from holdfast.store.embedded.lives import Lives
from holdfast.store.embedded.reading import Reading
from holdfast.store.embedded.repairing import Repairing
from holdfast.store.embedded.state_dir import open_state_dir, opening, unusable
from holdfast.store.embedded.tidying import Tidying
from holdfast.store.sql import inbox, queueing
from holdfast.store.sql.accounting import Accounting
from holdfast.store.sql.approving import Approving
from holdfast.store.sql.browsing import Browsing
from holdfast.store.sql.delivering import Delivering
from holdfast.store.sql.gating import Gating
from holdfast.store.sql.ledger import Job
from holdfast.store.sql.marking import Marking
from holdfast.store.sql.remembering import Remembering
from holdfast.store.sql.sharing import Sharing
from holdfast.store.sql.spawning import Spawning
from holdfast.store.sql.timing import Timing
from holdfast.store.sql.toolwork import Toolwork


class EmbeddedStore(
    Claiming, Ending, Marking, Sharing, Delivering, Lives, Reading, Remembering, Timing, Spawning, Approving, Toolwork,
    Gating, Browsing, Accounting, Tidying, Repairing,
):  # fmt: skip
    """All operations of `store/protocol.py`."""

    @classmethod
    def open(cls, path: Path, clock: Clock, options: StoreOptions) -> EmbeddedStore:
        """Open (or make) the state directory, one process at a time. Blocks for some milliseconds; see `open_state_dir`
        for what it refuses.
        """
        with opening(path):
            try:
                return cls(open_state_dir(path), clock, options)
            except OSError as exc:
                raise unusable(path, exc) from exc

    async def accept(self, event: InboundEvent, usual: QueueSettings = PLAIN, *, is_command: bool = False) -> Admission:
        """Store an input durably (one sync), or say why not. True when it returns, however the process ends."""
        validate_key(event.session)
        if event.home is not None:
            validate_key(event.home)
        digest = inbox.body_digest(event)
        now_ms = self.now_ms()

        def run(conn: sqlite3.Connection) -> Admission:
            transcript = self.register_session(conn, event.session, now_ms, event.home)
            admission = (queueing.accept_command if is_command else queueing.accept)(
                conn, event, transcript, usual, self.options.limits, now_ms, digest
            )
            self.options.faults("accept.before_commit")
            return admission

        admission = await self.writer.submit(Job(run, durable=True))
        self.options.faults("accept.after_commit")
        return admission
