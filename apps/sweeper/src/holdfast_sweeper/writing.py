"""Everything that is changed on GitHub passes here: what the settings allow, the fence, the pace, and the audit log."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import holdfast
from holdfast_sweeper.facts import Item
from holdfast_sweeper.github import AbsentError, GitHub, GitHubError, UnknownError
from holdfast_sweeper.reading import ours_among
from holdfast_sweeper.settings import May, Settings

AUDIT_BYTES_MAX = 20_000_000
RECONCILE_S = 2.0


class Audit:
    """A file of JSON lines, 0600, appended to: who has changed what, why, and what became of it. None: nowhere."""

    def __init__(self, path: Path | None, now: Callable[[], float] = time.time) -> None:
        self.path, self._now = path, now

    def note(self, item: Item, what: str, outcome: str, **more: Any) -> None:
        """One line. A disk that refuses it stops what was to be done: nothing is changed without a trace.

        Raises: OSError.
        """
        if self.path is None:
            return
        at = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="seconds")
        line = json.dumps({"at": at, "item": item.text, "what": what, "outcome": outcome, **more}, ensure_ascii=False)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > AUDIT_BYTES_MAX:
            self.path.replace(self.path.with_suffix(".old.jsonl"))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as out:
            out.write(line + "\n")


@dataclass(slots=True)
class Pace:
    """So many writes within a minute, and no more; whoever is too early waits."""

    per_minute: int
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    now: Callable[[], float] = time.monotonic
    _times: deque[float] = field(default_factory=deque[float])

    async def wait(self) -> None:
        while True:
            now = self.now()
            while self._times and self._times[0] <= now - 60:
                self._times.popleft()
            if len(self._times) < self.per_minute:
                self._times.append(now)
                return
            await self.sleep(max(0.01, self._times[0] + 60 - now))


@dataclass(slots=True)
class Writer:
    """Changes of one turn. by: who caused them, for the log."""

    github: GitHub
    settings: Settings
    audit: Audit
    pace: Pace
    item: Item
    turn: holdfast.Turn
    by: str

    async def do(
        self, may: May, method: str, path: str, body: Mapping[str, Any] | None = None, *, why: str, again: bool = True
    ) -> Any:
        """Change something; None also if the settings do not let it happen, which the log says.

        Raises:
            SessionTakeoverError, OwnershipLostError, TurnCancelledError: the item is another's now, or this turn is to
            stop: nothing was changed. GitHubError: and its kinds; OSError: the log cannot be written.
        """
        what = f"{method} {path}"
        facts = {"why": why, "by": self.by, "turn": self.turn.id}
        if not self.settings.allows(may):
            self.audit.note(self.item, what, "dry run" if self.settings.dry_run else f"not allowed: {may}", **facts)
            return None
        await self.pace.wait()
        await self.turn.check()  # as late as can be: whoever took over must not meet our change
        try:
            done = await self.github.write(method, path, body, again=again)
        except GitHubError as exc:
            self.audit.note(self.item, what, f"failed: {exc}", **facts)
            raise
        self.audit.note(self.item, what, "done", **facts)
        return {} if done is None else done


class OneComment:
    """The one comment of an item: found by its mark, edited in place, made if it is not there, one if there are more.

    Args:
        ours: as they were read when the turn began. is_unsure: an earlier attempt may have made one that we do not see.
    """

    def __init__(self, writer: Writer, ours: tuple[tuple[int, str], ...], *, is_unsure: bool) -> None:
        self._writer = writer
        self._ours = list(ours)
        self._is_unsure = is_unsure

    @property
    def id(self) -> int:
        """0: there is none yet."""
        return self._ours[0][0] if self._ours else 0

    async def show(self, body: str) -> None:
        """Let the comment say this. Raises: as `Writer.do`."""
        await self._only_one()
        if not self._ours:
            await self._make(body)
        elif self._ours[0][1] != body:
            try:
                await self._do("PATCH", f"comments/{self.id}", {"body": body}, "edit the comment")
            except AbsentError:  # somebody has deleted it meanwhile
                await self._look()
                await (self.show(body) if self._ours else self._make(body))
                return
            self._ours[0] = (self.id, body)

    async def settle(self) -> None:
        """Look once more if one may have been made that we do not know of, and leave one. Raises: as `Writer.do`."""
        if self._is_unsure and self._writer.settings.allows("comment"):
            newest = self._ours[0][1] if self._ours else ""
            await self._look()
            await self._only_one()
            self._is_unsure = False
            if self._ours and newest:
                await self.show(newest)

    async def _make(self, body: str) -> None:
        item = self._writer.item
        try:
            made = await self._do("POST", f"{item.number}/comments", {"body": body}, "make the comment", again=False)
        except UnknownError:
            self._is_unsure = True
            await self._writer.pace.sleep(RECONCILE_S)
            await self._look()
            if self._ours:
                await self.show(body)
                return
            made = await self._do("POST", f"{item.number}/comments", {"body": body}, "make the comment", again=False)
        if made is not None and isinstance(made.get("id"), int):
            self._ours = [(made["id"], body)]

    async def _only_one(self) -> None:
        """The oldest stays."""
        while len(self._ours) > 1:
            await self._do("DELETE", f"comments/{self._ours[-1][0]}", None, "one comment too many")
            self._ours.pop()

    async def _look(self) -> None:
        writer = self._writer
        comments = await writer.github.pages(f"/repos/{writer.item.repo}/issues/{writer.item.number}/comments")
        self._ours = list(ours_among(comments, writer.item, (await writer.github.me())[1]))

    async def _do(self, method: str, path: str, body: Any, why: str, *, again: bool = True) -> Any:
        where = f"/repos/{self._writer.item.repo}/issues/{path}"
        try:
            return await self._writer.do("comment", method, where, body, why=why, again=again)
        except AbsentError:
            if method != "DELETE":
                raise
            return {}
