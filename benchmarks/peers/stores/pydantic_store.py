"""pydantic-ai's `ConversationStore`: load, run, save against the revision. It ships in memory only: one process.

A save that meets another one raises `ConversationConflict`: the turn is not acknowledged, its model call thrown away.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from benchmarks.peers.stores.pydantic_common import agent_of, as_messages, as_said
from benchmarks.peers.stores.store import SESSION, Model, Said, Store

stores: Any = importlib.import_module("pydantic_ai.conversation_store")
conversations: Any = importlib.import_module("pydantic_ai.conversation")


class InMemory:
    def __init__(self) -> None:
        self._store = stores.InMemoryConversationStore()

    async def turn(self, question: str, model: Model) -> None:
        loaded = await self._store.load(SESSION)
        if loaded is None:
            result = await agent_of(model).run(question, conversation_id=SESSION)
        else:
            result = await agent_of(model).run(question, conversation=loaded)
        await self._store.save(result)

    async def history(self) -> list[Said]:
        loaded = await self._store.load(SESSION)
        return [] if loaded is None else as_said(list(loaded.messages))

    async def fill(self, said: list[Said]) -> None:
        await self._store.save(conversations.Conversation(messages=as_messages(said), conversation_id=SESSION))

    async def close(self) -> None: ...


async def open_store(_folder: Path) -> Store:
    return InMemory()
