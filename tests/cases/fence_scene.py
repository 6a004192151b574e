"""Acting out a fence case: one state directory, our turn, and whoever else writes to its transcript."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.session.entries import Entry, compaction
from holdfast.session.prompt_window import PromptWindow
from tests.cases.fence_script import BASE_ANSWER, Act, Script
from tests.cases.given import Case

KEY = "agent:main:main"
WORDS = {
    "unchanged": "unchanged",
    "advanced": "advance",
    "adopted": "advance",
    "foreign_turn": "takeover",
    "tampered": "takeover",
    "superseded": "takeover",
}
TAKEOVER_TEXT = "session file changed while embedded prompt lock was released"


@dataclass
class Scene:
    """One session under test: its state, our handle, the turn and window of the moment, and what has come out."""

    state: Path
    hf: holdfast.Holdfast
    script: Script
    turns: AsyncExitStack
    turn: holdfast.Turn | None = None
    window: PromptWindow | None = None
    path: Path = Path()
    base: str | None = None
    verdict: holdfast.Verdict | None = None
    untouched: bytes = b""
    raised: list[holdfast.SessionTakeoverError] = field(default_factory=list)

    @property
    def owner(self) -> holdfast.Turn:
        assert self.turn is not None
        return self.turn

    async def prepare(self) -> None:
        """Put the file of the case where the session will look for it."""
        self.path = await path_of(self.state.with_name("scratch"))
        where = self.state / self.path.relative_to(self.state.with_name("scratch"))
        self.path = where
        if self.script.before is not None:
            where.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            where.write_bytes(self.script.before)
        if self.script.base_exchange:
            async with self.hf.turn(KEY) as turn:
                await turn.append(holdfast.user("base question"))
                self.base = await turn.append(holdfast.assistant("base answer", model="demo/demo"))

    async def take(self, do: str) -> None:
        match do:
            case "claim":
                self.turn = await self.turns.enter_async_context(self.hf.turn(KEY, wait_s=5))
                assert Path(self.turn.transcript.path) == self.path
            case "enter":
                self.window = self.owner.prompt_window()
                await self.window.__aenter__()
            case "leave":
                await self.leave()
            case "end":
                self.window = None
                await self.turns.aclose()
            case "append":
                await self.owner.append(holdfast.user("own append"))
            case "mutate":
                if self.window is None and any(act.writer == "owner" for act in self.script.acts):
                    await self.take("enter")  # what is ours raises nothing; a window tells what was found of it
                for act in self.script.acts:
                    await self.perform(act)
                if self.script.bystander:  # not as a child of our turn, hence without its context
                    await asyncio.create_task(look_on(self.state), context=Context())
                self.untouched = self.path.read_bytes() if self.path.exists() else b""
            case _:
                raise AssertionError(do)

    async def leave(self) -> None:
        if self.window is None:
            return
        window, self.window = self.window, None
        try:
            await window.__aexit__(None, None, None)
        except holdfast.SessionTakeoverError as takeover:
            self.raised.append(takeover)
            self.verdict = takeover.verdict
        except holdfast.OwnershipLostError:
            assert self.raised, "a turn is lost only with a verdict"
        else:
            self.verdict = window.verdict

    async def perform(self, act: Act) -> None:
        if act.writer == "owner":
            await self.perform_ours(act)
        elif act.writer == "metadata":
            async with holdfast.open(self.state) as other:
                await other.session(KEY).append_metadata(metadata_for(act.record or {}))
        else:
            perform_outside(act, self.path, base=self.base)

    async def perform_ours(self, act: Act) -> None:
        if act.op == "header":
            with pytest.raises(holdfast.InputError):  # refused before the lock: the message is withheld
                await self.owner.append(holdfast.user([{"type": "text", "text": object()}]))
        elif act.op == "checked append":
            await self.leave()
            assert self.verdict is not None
            assert act.verdict in (None, WORDS[self.verdict.kind])
            await self.owner.append(entry_for(act.record or {}))
            await self.take("enter")
        elif act.throws:
            with pytest.raises(LookupError):
                await self.append_then_throw(entry_for(act.record or {}))
        else:
            try:
                await self.owner.append(entry_for(act.record or {}))
            except holdfast.SessionTakeoverError as takeover:
                self.raised.append(takeover)
                self.verdict = takeover.verdict

    async def append_then_throw(self, entry: Entry) -> None:
        await self.owner.append(entry)
        raise LookupError("the callback failed after its write")


async def path_of(scratch: Path) -> Path:
    """Where a state keeps the transcript of `KEY`, asked of a state that is not used for anything else."""
    async with holdfast.open(scratch) as hf, hf.turn(KEY) as turn:
        return Path(turn.transcript.path)


async def look_on(state: Path) -> None:
    """Another program opens the session, asks for its turn, reads it, and goes away."""
    async with holdfast.open(state) as other:
        with pytest.raises(holdfast.SessionBusyError):
            await other.turn(KEY, wait_s=0).__aenter__()
        assert await other.session(KEY).lines()


def entry_for(record: dict[str, Any]) -> Entry:
    """What our own program writes where the case names only a type and an id."""
    if record["type"] == "compaction":
        return compaction("all of it", "base")
    assert record["type"] == "message"
    return holdfast.user(record["id"])


def metadata_for(record: dict[str, Any]) -> Entry:
    """What may be written beside a turn: a copy of something delivered."""
    assert record["type"] == "message"
    return holdfast.mirror(record["id"])


def perform_outside(act: Act, path: Path, *, base: str | None) -> None:
    """What a program does that knows nothing of Holdfast."""
    match act.op:
        case "append":
            raw = json.dumps(act.record).replace(BASE_ANSWER, base or "")
            with path.open("ab") as file:
                file.write(raw.encode() + b"\n")
        case "write":
            lines = [
                json.dumps(line) + "\n" for line in (act.record or {}).get("lines", [])
            ]  # a header and what follows
            before = path.stat()
            with path.open("r+b") as file:
                file.truncate(file.write(("".join(lines) or act.content).encode()))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "times":
            path.chmod(0o640)
        case "truncate":
            os.truncate(path, path.stat().st_size // 2)
        case "delete":
            path.unlink()
        case "replace":
            copy = path.with_name("copy")
            copy.write_bytes(path.read_bytes())
            copy.rename(path)
        case _:
            raise AssertionError(act.op)


# ── what must be true afterwards ────────────────────────────────────────────────────────────────────────────────────


async def check_by_next_write(scene: Scene) -> holdfast.Verdict:
    """Leave the window, then write: the verdict is the first that raised, or else what leaving has found."""
    await scene.leave()
    verdict = scene.verdict
    try:
        await scene.owner.append(holdfast.assistant("late", model="demo/demo"))
    except holdfast.SessionTakeoverError as takeover:
        scene.raised.append(takeover)
        verdict = takeover.verdict
    except holdfast.OwnershipLostError:
        assert scene.raised, "a turn is lost only with a verdict"
    assert verdict is not None
    return scene.raised[0].verdict if scene.raised else verdict


async def must_have_stopped(scene: Scene) -> None:
    """The error says so, the turn stays lost, what was found is as it was, and the next turn is not kept waiting."""
    assert TAKEOVER_TEXT in str(scene.raised[0])
    assert scene.owner.lost is not None
    assert (scene.path.read_bytes() if scene.path.exists() else b"") == scene.untouched
    await scene.take("end")
    try:
        async with scene.hf.turn(KEY, wait_s=0) as turn:
            await turn.append(holdfast.user("next-inbound"))
    except holdfast.TranscriptFormatError:
        assert scene.path.read_bytes() == scene.untouched  # its header is gone: said so, and left as it is
    else:
        assert "next-inbound" in scene.path.read_text()


async def must_have_gone_on(scene: Scene, case: Case) -> None:
    """The late line stands behind everything that was there, on our own branch."""
    assert not scene.raised
    data = scene.path.read_bytes()
    assert data.startswith(scene.untouched)
    late = json.loads(data[len(scene.untouched) :])
    assert late["message"]["content"] == [{"type": "text", "text": "late"}]
    assert scene.verdict is not None or not case.expected.get("merged_ids")
    if "merged_ids" in case.expected and scene.verdict is not None:
        assert list(scene.verdict.entries) == case.expected["merged_ids"]
    if "merged" in case.expected and scene.verdict is not None:
        assert list(scene.verdict.entries) == case.expected["merged"]
    if case.expected.get("leaf") == BASE_ANSWER:
        assert late["parentId"] == scene.base
    await scene.take("end")
    async with scene.hf.turn(KEY, wait_s=0) as turn:
        shown = json.dumps(await turn.context())
    assert "late" in shown
    if case.expected.get("side_text_in_context") is False:
        assert "delivery-mirror" not in shown


async def must_be_met_openly(scene: Scene) -> None:
    """A turn that begins after the change raises nothing, reads the file anew and says what it met."""
    await scene.owner.append(holdfast.user("afterwards"))
    turn_id = scene.owner.id
    assert scene.path.read_bytes().startswith(scene.untouched)
    assert "afterwards" in json.dumps(await scene.owner.context())
    await scene.take("end")
    told = " ".join(line.text for line in (await scene.hf.why(turn_id)).lines)
    assert "found on taking the session: between turns" in told
