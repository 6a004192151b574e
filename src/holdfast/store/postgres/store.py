"""The PostgreSQL store: one node's hold on a state that any number of nodes share.

Its parts are layers over `core.py`: `claiming.py` (read it first), `writing.py`, `lives.py`, `tidying.py`,
`repairing.py`; the rest is the ledger's, shared with the embedded store (`store/sql`). `docs/postgres.md` names what is
missing.
"""

from __future__ import annotations

from holdfast.clock import Clock
from holdfast.inbound.event import Admission, InboundEvent
from holdfast.lane.queue import PLAIN, QueueSettings
from holdfast.session.key import validate_key
from holdfast.store.postgres.claiming import Claiming
from holdfast.store.postgres.core import PostgresOptions
from holdfast.store.postgres.lives import Lives
from holdfast.store.postgres.repairing import Repairing
from holdfast.store.postgres.tidying import Tidying
from holdfast.store.postgres.writing import Writing
from holdfast.store.sql import inbox, queueing
from holdfast.store.sql.accounting import Accounting
from holdfast.store.sql.approving import Approving
from holdfast.store.sql.browsing import Browsing
from holdfast.store.sql.connection import Connection
from holdfast.store.sql.delivering import Delivering
from holdfast.store.sql.gating import Gating
from holdfast.store.sql.ledger import Job
from holdfast.store.sql.marking import Marking
from holdfast.store.sql.remembering import Remembering
from holdfast.store.sql.sharing import Sharing
from holdfast.store.sql.spawning import Spawning
from holdfast.store.sql.timing import Timing
from holdfast.store.sql.toolwork import Toolwork


class PostgresStore(
    Claiming, Writing, Marking, Sharing, Delivering, Lives, Remembering, Timing, Spawning, Approving, Toolwork, Gating,
    Browsing, Accounting, Tidying, Repairing,
):  # fmt: skip
    """All operations of `store/protocol.py`."""

    @classmethod
    def open(cls, url: str, clock: Clock, options: PostgresOptions) -> PostgresStore:
        """Open a state, making its tables if the database has none. Blocks for some milliseconds.

        Raises:
            InputError: no URL of PostgreSQL's. ResourceError: the server cannot be reached, is too old, or the role may
            not make the tables. StateVersionError: made by a newer release.
        """
        return cls(url, clock, options)

    async def accept(self, event: InboundEvent, usual: QueueSettings = PLAIN, *, is_command: bool = False) -> Admission:
        """Store an input durably, or say why not. True when it returns, however the node ends."""
        validate_key(event.session)
        if event.home is not None:
            validate_key(event.home)
        digest = inbox.body_digest(event)
        now_ms = self.now_ms()

        def run(conn: Connection) -> Admission:
            transcript = self.register_session(conn, event.session, now_ms, event.home)
            admission = (queueing.accept_command if is_command else queueing.accept)(
                conn, event, transcript, usual, self.options.limits, now_ms, digest
            )
            self.options.faults("accept.before_commit")
            return admission

        admission = await self.writer.submit(Job(run, durable=True))
        self.options.faults("accept.after_commit")
        return admission
