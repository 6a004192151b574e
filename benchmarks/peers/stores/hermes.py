"""hermes-agent: its `SessionDB` alone, on a thread as its agent runs; the agent around it is left out."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

from benchmarks.peers.stores.store import SESSION, Model, Said, Store

states: Any = importlib.import_module("hermes_state")


class Hermes:
    def __init__(self, folder: Path) -> None:
        self._db = states.SessionDB(db_path=folder / "state.db")
        self._db.ensure_session(SESSION, source="cli")

    async def turn(self, question: str, model: Model) -> None:
        await asyncio.to_thread(self._db.get_messages_as_conversation, SESSION)
        await asyncio.to_thread(self._db.append_message, SESSION, "user", question)
        answer = await model(question)
        await asyncio.to_thread(self._db.append_message, SESSION, "assistant", answer)

    async def history(self) -> list[Said]:
        return [(one["role"], one["content"]) for one in self._db.get_messages_as_conversation(SESSION)]

    async def fill(self, said: list[Said]) -> None:
        self._db.replace_messages(SESSION, [{"role": role, "content": text} for role, text in said])

    async def close(self) -> None:
        self._db.close()


async def open_store(folder: Path) -> Store:
    return Hermes(folder)
