"""nanobot: its `SessionManager`, as its loop uses it: get the session, add, save the whole of it, twice a turn."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.stores.store import Model, Said, Store

logs: Any = importlib.import_module("loguru")
logs.logger.remove()
logs.logger.add(sys.stderr, level="ERROR")
managers: Any = importlib.import_module("nanobot.session.manager")
KEY = "cli:direct"


class Nanobot:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manager = managers.SessionManager(folder / "workspace", sessions_root=folder / "sessions")

    async def turn(self, question: str, model: Model) -> None:
        session = self._manager.get_or_create(KEY)
        session.get_history()
        session.add_message("user", question)
        self._manager.save(session)
        answer = await model(question)
        session.add_message("assistant", answer)
        self._manager.save(session)

    async def history(self) -> list[Said]:
        anew = managers.SessionManager(self._folder / "workspace", sessions_root=self._folder / "sessions")
        return [(one["role"], one["content"]) for one in anew.get_or_create(KEY).messages]

    async def fill(self, said: list[Said]) -> None:
        session = self._manager.get_or_create(KEY)
        for role, text in said:
            session.add_message(role, text)
        self._manager.save(session)

    async def close(self) -> None: ...


async def open_store(folder: Path) -> Store:
    (folder / "workspace").mkdir(exist_ok=True)
    return Nanobot(folder)
