"""Which processes of a state directory are gone for good; what is thrown away with them: `store/sql/tidying.py`."""

from __future__ import annotations

from holdfast.store.embedded.core import StoreCore
from holdfast.store.embedded.record_file import boot_id
from holdfast.store.sql import tidying
from holdfast.store.sql.connection import Connection, Row


class Tidying(tidying.Tidying, StoreCore):
    @property
    def keep_days(self) -> float:
        return self.options.keep_days

    def is_process_gone(self, conn: Connection, row: Row, old_ms: int) -> bool:
        """By its sentinel; where that is gone too, by the boot of the machine, or its age."""
        del conn
        life = self.sentinel.life_of(row["name"])
        return life != "alive" and (life == "dead" or row["boot"] != boot_id() or row["started_at_ms"] < old_ms)
