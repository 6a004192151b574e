"""Which nodes are gone for good; what is thrown away with them: `store/sql/tidying.py`."""

from __future__ import annotations

from holdfast.store.postgres.core import PostgresCore
from holdfast.store.sql import tidying
from holdfast.store.sql.connection import Connection, Row


class Tidying(tidying.Tidying, PostgresCore):
    @property
    def keep_days(self) -> float:
        return self.options.keep_days

    def is_process_gone(self, conn: Connection, row: Row, old_ms: int) -> bool:
        """By its lock. One that was watched too shortly is looked at again the next time; rows of nodes cost little."""
        del old_ms
        return self.life_in(conn, row["name"]) == "dead"
