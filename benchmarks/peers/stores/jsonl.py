"""A hand-written file of JSON lines, as people do: read all of it, append the question, ask, append the answer."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.peers.stores.store import Model, Said, Store


class JsonLines:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "conversation.jsonl"

    def _append(self, role: str, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"role": role, "content": text}) + "\n")

    async def turn(self, question: str, model: Model) -> None:
        await self.history()
        self._append("user", question)
        self._append("assistant", await model(question))

    async def history(self) -> list[Said]:
        if not self._path.exists():
            return []
        with self._path.open(encoding="utf-8") as file:
            return [(one["role"], one["content"]) for one in map(json.loads, file)]

    async def fill(self, said: list[Said]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"role": role, "content": text}) + "\n" for role, text in said)

    async def close(self) -> None: ...


async def open_store(folder: Path) -> Store:
    return JsonLines(folder)
