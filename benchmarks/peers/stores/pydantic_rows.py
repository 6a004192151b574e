"""pydantic-ai with one row per turn: the chat application of its documentation, on SQLite.

Read all rows, run the agent with that history, insert one row with the turn's new messages.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.peers.stores.pydantic_common import agent_of, as_messages, as_said, messages
from benchmarks.peers.stores.store import Model, Said, Store


class Rows:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "chat.db"
        with closing(self._connect()) as db, db:
            db.execute("create table if not exists messages (id integer primary key, message_list text)")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=60)

    def _read(self) -> list[Any]:
        found: list[Any] = []
        with closing(self._connect()) as db:
            for (row,) in db.execute("select message_list from messages order by id").fetchall():
                found += messages.ModelMessagesTypeAdapter.validate_json(row)
        return found

    def _write(self, data: bytes) -> None:
        with closing(self._connect()) as db, db:
            db.execute("insert into messages (message_list) values (?)", (data,))

    async def turn(self, question: str, model: Model) -> None:
        history = await asyncio.to_thread(self._read)
        result = await agent_of(model).run(question, message_history=history)
        await asyncio.to_thread(self._write, result.new_messages_json())

    async def history(self) -> list[Said]:
        return as_said(self._read())

    async def fill(self, said: list[Said]) -> None:
        turns = [as_messages(said[at : at + 2]) for at in range(0, len(said), 2)]
        data = [(messages.ModelMessagesTypeAdapter.dump_json(one),) for one in turns]
        with closing(self._connect()) as db, db:
            db.executemany("insert into messages (message_list) values (?)", data)

    async def close(self) -> None: ...


async def open_store(folder: Path) -> Store:
    return Rows(folder)
