"""Session keys and the transcripts behind them."""

from __future__ import annotations

from typing import Protocol

from holdfast.store.sql.connection import Connection
from holdfast.store.sql.ledger import Ledger


class Registering(Ledger, Protocol):
    """Several keys may share one transcript."""

    _known: dict[str, str]
    """Session key to transcript; a claim asks the ledger again."""

    def own_transcript(self, conn: Connection, key: str) -> str:
        """The transcript of a key that shares none; it is made if it is new."""
        ...

    def register_session(self, conn: Connection, key: str, now_ms: int, home: str | None = None) -> str:
        """The transcript of a key, which is made known if it is new.

        Args:
            home: as of `InboundEvent`. A key that changes over does so once it has no open input: those stay where they
                are in line.
        """
        row = conn.execute("select transcript, home from sessions where key=?", (key,)).fetchone()
        if row is not None and home is not None and (row["home"] or key) != home:
            return self._move_session(conn, key, row["transcript"], home, now_ms)
        if row is not None:
            return row["transcript"]
        shared = home if home is not None and home != key else None
        transcript = self.own_transcript(conn, key) if shared is None else self.register_session(conn, shared, now_ms)
        conn.execute(
            "insert into sessions(key, transcript, created_at_ms, updated_at_ms, home) values(?,?,?,?,?)",
            (key, transcript, now_ms, now_ms, shared),
        )
        return transcript

    def _move_session(self, conn: Connection, key: str, before: str, home: str, now_ms: int) -> str:
        is_open = conn.execute(
            "select 1 from inputs where transcript=? and state in ('queued', 'running') and session=? limit 1",
            (before, key),
        ).fetchone()
        if is_open is not None:
            return before
        transcript = self.own_transcript(conn, key) if home == key else self.register_session(conn, home, now_ms)
        conn.execute(
            "update sessions set transcript=?, home=? where key=?", (transcript, home if home != key else None, key)
        )
        self._known.pop(key, None)  # here; other processes hear of it at their next claim
        return transcript
