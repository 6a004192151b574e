"""Connections: how one is made, and what every session of ours has set."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
import psycopg.sql
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from holdfast.errors import InputError, StateAwayError
from holdfast.node_dir import without_password
from holdfast.store.postgres.dialect import translated, values_of
from holdfast.store.postgres.schema import SCHEMA
from holdfast.store.sql.connection import Cursor

PER_NODE = 3
"""Connections that a node keeps: writer, reader, sign of life. One more while it opens."""
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
CONNECT_S = 3
REPLY_S = 10.0
"""A statement that has had no answer for so long has lost its server, whatever TCP says: behind a proxy or a firewall
that drops packets no error ever comes."""
STATEMENT_MS = 30_000
IDLE_IN_TRANSACTION_MS = 3_000
"""A node that is stopped or cut off within a transaction holds others up for no longer: the server ends it."""
UNREACHABLE = "-c tcp_keepalives_idle=1 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=2"
"""How the server finds out within 3 s that a machine is cut off; one whose process only stands still answers."""
_OURS = {
    "search_path": SCHEMA, "synchronous_commit": "on", "statement_timeout": str(STATEMENT_MS),
    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS), "timezone": "UTC",
}  # fmt: skip
_SETTINGS = " ".join(f"-c {name}={value}" for name, value in _OURS.items()) + (
    f" {UNREACHABLE} -c default_transaction_isolation=read\\ committed"
)
LOCALLY = psycopg.sql.SQL("; ").join(
    psycopg.sql.SQL("set local {}={}").format(psycopg.sql.Identifier(name), value) for name, value in _OURS.items()
)
"""The same for one transaction: behind a pooler a session is everybody's, and nothing may be set in it that stays."""
SESSION_URL_VARIABLE = "HOLDFAST_SESSION_URL"
"""Where the URL of a state names a pooler: the server itself, for the node's own connection."""


class Row:
    """A row by column name or by place, as sqlite3's."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: dict[str, int], values: Sequence[Any]) -> None:
        self._names = names
        self._values = values

    def __getitem__(self, key: Any) -> Any:
        return self._values[self._names[key] if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> list[str]:
        return list(self._names)


def _row_factory(cursor: psycopg.Cursor[Any]) -> Any:
    names = {column.name: place for place, column in enumerate(cursor.description or ())}
    return lambda values: Row(names, values)


class _Numbers(Loader):
    """Sums of whole numbers come as `numeric`."""

    def load(self, data: Any) -> Any:
        value = Decimal(bytes(data).decode())
        return int(value) if value == value.to_integral_value() else float(value)


class Patient(psycopg.Connection[Any]):
    """A connection that gives a statement up, and itself, when no answer comes within `REPLY_S`; it counts what it has
    waited for.
    """

    round_trips = 0
    pooled = False
    """Whether a pooler in transaction mode stands between: each transaction may be on another connection of its."""

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        self.round_trips += 1
        return super().wait(self._within(gen), *args, **kwargs)

    def _within(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """The same steps; the caller comes back with nothing ten times a second while it waits."""
        until = time.monotonic() + REPLY_S
        try:
            step = next(gen)
            while True:
                ready = yield step
                if not ready and time.monotonic() >= until:
                    gen.close()
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer from the server within {REPLY_S:g} s")
                step = gen.send(ready)
        except StopIteration as end:
            return end.value


class LedgerConnection:
    """A connection as the ledger's statements use it (`store/sql/connection.py`)."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.raw = raw

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Cursor:
        said, by_place = translated(sql)
        return self.raw.execute(said.encode(), values_of(parameters, by_place=by_place))

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor:
        said, by_place = translated(sql)
        cursor = self.raw.cursor()
        cursor.executemany(said.encode(), [values_of(one, by_place=by_place) for one in parameters])
        return cursor


def connect(url: str, purpose: str, *, may_be_pooled: bool = False) -> Patient:
    """One connection, to be used by one thread at a time. Transactions are begun by hand.

    Args:
        purpose: what it is for, in `pg_stat_activity`.
        may_be_pooled: the caller sets what it needs in each transaction (`begin`), keeps nothing in the session and
            prepares nothing.

    Raises:
        psycopg.OperationalError: the server cannot be reached, or refuses.
        InputError: there is a pooler in transaction mode between, which does not do for this.
    """
    asked = conninfo_to_dict(url)
    usual: dict[str, Any] = {
        "connect_timeout": CONNECT_S, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
        "tcp_user_timeout": 10_000, "application_name": f"holdfast {purpose}",
    }  # fmt: skip
    options = f"{asked.pop('options', None) or ''} {_SETTINGS}".strip()
    try:
        raw = _connected(make_conninfo("", **{**usual, **asked, "options": options}))
    except psycopg.OperationalError as exc:
        if "unsupported startup parameter" not in str(exc):
            raise
        raw = _connected(make_conninfo("", **{**usual, **asked}))
        raw.pooled = True
    else:  # a pooler may have been told to ignore what we asked for
        is_set = raw.execute("select current_setting('search_path')=%s", (SCHEMA,)).fetchone()
        raw.pooled = is_set is None or not is_set[0]
    if raw.pooled:
        raw.prepare_threshold = None
    if raw.pooled and not may_be_pooled:
        raw.close()
        raise InputError(
            f"{without_password(url)} goes through a pooler in transaction mode, which does not do for this: name the"
            " server itself"
        )
    return raw


def _connected(conninfo: str) -> Patient:
    raw = Patient.connect(conninfo, autocommit=True, row_factory=_row_factory)
    raw.adapters.register_loader("numeric", _Numbers)
    return raw


def begin(raw: Patient, *, read_only: bool = False) -> None:
    """Begin a transaction with everything set that our sessions have."""
    mode = psycopg.sql.SQL("read only" if read_only else "read write")
    raw.execute(psycopg.sql.SQL("begin isolation level read committed {}; {}").format(mode, LOCALLY))


@contextmanager
def in_transaction(raw: Patient) -> Iterator[LedgerConnection]:
    """One transaction, committed at the end of the block."""
    with raw.transaction():
        raw.execute(LOCALLY)
        yield LedgerConnection(raw)


def session_url(url: str) -> str:
    """Where a node's own connection goes: it needs a session for itself."""
    return os.environ.get(SESSION_URL_VARIABLE, "").strip() or url


def check_url(url: str) -> None:
    """Raises InputError: it is no URL of PostgreSQL's."""
    try:
        asked = conninfo_to_dict(url)
    except psycopg.ProgrammingError as exc:
        raise InputError(f"{without_password(url)} is no PostgreSQL URL: {str(exc).strip()}") from exc
    mode = asked.get("sslmode", "prefer")
    if mode not in SSL_MODES:
        raise InputError(f"{without_password(url)}: sslmode={mode} is none of {', '.join(SSL_MODES)}")


def unreachable(url: str, exc: psycopg.Error) -> StateAwayError:
    """What is said when the database cannot be used now."""
    said = " ".join(str(exc).split()) or type(exc).__name__
    return StateAwayError(
        f"the database {without_password(url)} cannot be used now: {said}; nothing of this was recorded"
    )
