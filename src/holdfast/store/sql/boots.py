"""Boots of gateways and the hold that a crash loop puts on work: SQL. Every function takes a connection."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.recovery.classify import BOOT_WINDOW_S, Boot, Life, is_crash_loop, unclean_boots
from holdfast.store.sql.connection import Connection
from holdfast.store.views import Hold

CRASH_LOOP = "crash loop"


def begin(conn: Connection, process: str, now_ms: int, unclean_max: int, life_of: Callable[[str], Life]) -> Hold | None:
    """Note that a gateway starts; hold work back if those before it died one after the other. Within a transaction."""
    rows = conn.execute("select process, at_ms, ended from boots").fetchall()
    boots = [Boot(row["process"], row["at_ms"], life_of(row["process"]), bool(row["ended"])) for row in rows]
    if is_crash_loop(boots, now_ms, unclean_max):
        count = len(unclean_boots(boots, now_ms))
        reason = f"{count} gateways died within {BOOT_WINDOW_S / 60:.0f} minutes of each other"
        conn.execute("insert or ignore into holds(id, since_ms, reason) values(?,?,?)", (CRASH_LOOP, now_ms, reason))
    conn.executemany("delete from boots where process=?", [(boot.process,) for boot in _of_no_use(boots, now_ms)])
    conn.execute("insert or replace into boots(process, at_ms, ended) values(?,?,0)", (process, now_ms))
    return held(conn)


def _of_no_use(boots: list[Boot], now_ms: int) -> list[Boot]:
    """Over, and either in order or longer ago than the window."""
    counted = unclean_boots(boots, now_ms)
    return [boot for boot in boots if boot.life != "alive" and boot not in counted]


def end(conn: Connection, process: str) -> None:
    """The gateway ends in order."""
    conn.execute("update boots set ended=1 where process=?", (process,))


def gateways(conn: Connection) -> list[str]:
    """Processes that started as gateways and have not ended in order."""
    return [row[0] for row in conn.execute("select process from boots where ended=0")]


def held(conn: Connection) -> Hold | None:
    """Whether work is held back, and why."""
    row = conn.execute("select since_ms, reason from holds order by since_ms limit 1").fetchone()
    return None if row is None else Hold(row["since_ms"], row["reason"])


def release(conn: Connection, life_of: Callable[[str], Life]) -> Hold | None:
    """Let work go on, and forget what led to the hold. Returns the hold that was there."""
    hold = held(conn)
    conn.execute("delete from holds")
    for row in conn.execute("select process from boots").fetchall():
        if life_of(row["process"]) != "alive":
            conn.execute("delete from boots where process=?", (row["process"],))
    return hold
