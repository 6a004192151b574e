"""A database as a source or a target: nobody lives in it, and nobody opens it meanwhile."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import psycopg

from holdfast.clock import SystemClock
from holdfast.errors import InputError
from holdfast.store.copying import carried
from holdfast.store.postgres import schema
from holdfast.store.postgres.connecting import LedgerConnection, check_url, connect, unreachable, without_password
from holdfast.store.postgres.node import GONE_S, LOOK_S, LifeWatch


def connect_alone(url: str) -> psycopg.Connection[Any]:
    """A connection that keeps everybody from opening the state, as long as it lasts.

    Raises: InputError: no URL, or a node lives there, or another copy is at it. ResourceError: it cannot be reached.
    """
    check_url(url)
    try:
        raw = connect(url, "copying")
    except psycopg.OperationalError as exc:
        raise unreachable(url, exc) from exc
    raw.execute("set statement_timeout=0; set idle_in_transaction_session_timeout=0")
    alone = raw.execute("select pg_try_advisory_lock(%s)", (schema.MIGRATING,)).fetchone()
    if alone is None or not alone[0]:
        raw.close()
        raise InputError(f"{without_password(url)} is being opened or copied by somebody else now; try again")
    try:
        if schema.is_made(raw):
            _refuse_living(raw, url)
    except BaseException:
        raw.close()
        raise
    return raw


def _refuse_living(raw: psycopg.Connection[Any], url: str) -> None:
    """Who has lost its connection a moment ago may come back: it is watched for as long as others would."""
    lives, until = LifeWatch("", SystemClock()), time.monotonic() + GONE_S + 2 * LOOK_S
    while True:
        conn = LedgerConnection(raw)
        names = [row[0] for row in raw.execute("select name from processes where node<>-1")]
        found = [lives.life_in(conn, name) for name in names]
        living = found.count("alive")
        if living:
            raise InputError(
                f"{living} node(s) use {without_password(url)} now; stop them first (`holdfast stop`), what they do "
                "meanwhile would be missing in the copy"
            )
        if "unknown" not in found or time.monotonic() >= until:
            return
        time.sleep(LOOK_S)


def seen(raw: psycopg.Connection[Any]) -> str:
    """Changes when the state does. Lines are not read: who adds, changes or removes one leaves a trace in `transcripts`
    or `archives` (`postgres/schema.py`).
    """
    digest = hashlib.sha256()
    for name, _, _ in carried.tables():
        row = raw.execute(
            f"select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from {name} t".encode()  # noqa: S608  # names of our own
        ).fetchone()
        assert row is not None
        digest.update(f"{name} {row[0]} {row[1]}\n".encode())
    return digest.hexdigest()
