"""Random histories of one transcript against a small model of what the fence may and must say (P5, P6).

Two handles (as two processes would have them), an outsider that knows nothing of either, owners that crash, records
that vanish. The model knows only what happened since the owner last looked; the verdict must be of the kind that
follows: nothing harmless ever stops a turn, nothing harmful is ever passed, and what stops a turn is found before a
byte is added.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

import holdfast
from holdfast.errors import OwnershipLostError, SessionTakeoverError, TranscriptUnsettledError
from holdfast.kernel import Holdfast
from holdfast.session.fence import Verdict
from holdfast.turn.turn import Turn
from tests.faults import outsider

KEY = "agent:main:main"
HARMLESS = ("label", "session_info", "model_change", "custom", "mirror", "touch", "hard_link")
FOREIGN = ("user", "assistant", "custom_message", "compaction", "branch_summary")
TAMPERED = ("torn", "delete", "replace", "cut", "edit", "malformed", "header", "unknown_type")

STEPS = st.one_of(
    st.sampled_from(["own", "own", "window", "look", "next", "crash", "forget"]).map(lambda do: (do, 0)),
    st.tuples(st.sampled_from(["metadata", "next"]), st.integers(0, 1)),
    st.sampled_from(HARMLESS).map(lambda do: (do, 0)),
    st.sampled_from(FOREIGN).map(lambda do: (do, 0)),
    st.sampled_from(TAMPERED).map(lambda do: (do, 0)),
)


@dataclass
class Since:
    """What happened since the owner last looked."""

    recorded: bool = False
    unrecorded: bool = False
    foreign: bool = False
    tampered: bool = False
    record_gone: bool = False

    def allowed(self) -> set[str]:
        if self.tampered:
            return {"tampered"}
        if self.foreign:
            return {"foreign_turn"}
        if self.unrecorded:
            return {"adopted"}
        if self.recorded:  # without the record it may have to be found by reading
            return {"advanced", "adopted"} if self.record_gone else {"advanced"}
        # the owner's own look may have written the file's times anew into a record that had vanished
        return {"unchanged", "adopted"} if self.record_gone else {"unchanged"}


@dataclass
class History:
    """The real thing and the model side by side."""

    root: Path
    stack: AsyncExitStack
    handles: list[Holdfast] = field(default_factory=list)
    owner: int = 0
    turn: Turn | None = None
    since: Since = field(default_factory=Since)
    backups: int = 0
    clean: tuple[int, int] = (0, 0)  # inode and size when a handle last wrote

    @property
    def path(self) -> Path:
        assert self.turn is not None
        return Path(self.turn.transcript.path)

    async def begin(self) -> None:
        for _ in range(2):
            self.handles.append(await self.stack.enter_async_context(holdfast.open(self.root / "state")))
        await self.claim(0)
        await self.own()

    async def claim(self, handle: int) -> None:
        turn = await self.handles[handle].claim(KEY, wait_s=5)
        assert isinstance(turn, Turn)
        if self.turn is not None:
            assert turn.epoch.number > self.turn.epoch.number
        self.owner, self.turn, self.since = handle, turn, Since()
        self.note_clean()

    async def step(self, do: str, which: int) -> None:
        if do in ("own", "window", "look", "next", "crash", "forget"):
            await getattr(self, do)(*([which] if do == "next" else []))
        elif do == "metadata":
            await self.metadata(which)
        else:
            self.outside(do)

    # ── the owner ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def own(self) -> None:
        turn = self.turn
        assert turn is not None
        await self.found(lambda: turn.append(holdfast.custom("own", 1)), wrote=True)

    async def look(self) -> None:
        turn = self.turn
        assert turn is not None
        await self.found(turn.inspect)

    async def window(self) -> None:
        turn = self.turn
        assert turn is not None

        async def leave() -> Verdict:
            async with turn.prompt_window() as window:
                pass
            assert window.verdict is not None
            return window.verdict

        await self.found(leave)

    async def found(self, act: Any, *, wrote: bool = False) -> None:
        """The owner looks: in whatever way it does, the verdict is one that the model allows."""
        allowed, before = self.since.allowed(), self.bytes()
        verdict = await self.verdict_of(act)
        if verdict is not None:
            event(verdict.kind)
            assert verdict.kind in allowed, f"{verdict}, allowed {allowed}"
            if verdict.is_takeover():
                assert self.bytes() == before, "something was added after a takeover"
                await self.start_again()
                return
        assert not allowed & {"foreign_turn", "tampered"}, f"missed takeover: {allowed}"
        after = self.bytes()
        assert after is not None
        assert before is not None
        assert after.startswith(before)
        assert wrote == (len(after) > len(before))
        self.since = Since()
        self.note_clean()

    @staticmethod
    async def verdict_of(act: Any) -> Verdict | None:
        """None for an append that went through."""
        try:
            found = await act()
        except SessionTakeoverError as lost:
            return lost.verdict
        return found if isinstance(found, Verdict) else None

    async def start_again(self) -> None:
        """A lost turn stays lost; the next one begins from whatever is there."""
        turn = self.turn
        assert turn is not None
        with pytest.raises(OwnershipLostError):
            await turn.append(holdfast.user("late"))
        await self.handles[self.owner].close_turn(turn, None)
        await self.claim(self.owner)

    async def next(self, which: int) -> None:
        turn = self.turn
        assert turn is not None
        await self.handles[self.owner].close_turn(turn, None)
        await self.claim(which)

    async def crash(self) -> None:
        """The owner's process goes without a word; another handle takes its place."""
        await self.handles[self.owner].store.close()
        self.handles[self.owner] = await self.stack.enter_async_context(holdfast.open(self.root / "state"))
        await self.claim(1 - self.owner)

    # ── others ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def metadata(self, which: int) -> None:
        before, unclear = self.bytes(), self.is_unclear()
        try:
            await self.handles[which].session(KEY).append_metadata(holdfast.session_info("title"))
        except TranscriptUnsettledError:
            assert unclear or self.since.record_gone, "nothing was unclear"
            assert (self.bytes() or b"") == (before or b"")  # an empty file may stand where one was deleted
        else:
            assert not unclear, "written where the end was unclear"
            self.since.recorded = True
            self.note_clean()

    async def forget(self) -> None:
        for file in (self.root / "state" / "fence").iterdir():
            file.unlink()
        self.since.record_gone = True

    def outside(self, do: str) -> None:
        path = str(self.path)
        header = (self.bytes() or b"").find(b"\n") + 1
        if not header or (do == "cut" and self.clean[1] <= header) or (self.since.tampered and do in ("edit", "cut")):
            return  # nothing to change, nothing recorded to cut, or it might undo what was done before
        if do in ("touch", "hard_link"):
            self.backups += 1
            if do == "touch":
                outsider.touch(path)
            else:
                Path(f"{path}.backup-{self.backups}").hardlink_to(path)
            self.since.unrecorded = True
        elif do in HARMLESS:
            outsider.append(path, do, parent=self.leaf())
            self.since.unrecorded = True
        elif do in FOREIGN:
            outsider.append(path, do)
            self.since.foreign = True
        else:
            self.backups += 1
            # keeps the inode in use: one that is given to the next file makes the same bytes the same file
            Path(f"{path}.backup-{self.backups}").hardlink_to(path)
            self.damage(do, path)
            self.since.tampered = True

    def note_clean(self) -> None:
        at = self.path.stat()
        self.clean = (at.st_ino, at.st_size)

    def is_unclear(self) -> bool:
        """Whether the end is anything but a clean continuation of what a handle last wrote."""
        if not self.path.exists():
            return True
        at = self.path.stat()
        return at.st_ino != self.clean[0] or at.st_size < self.clean[1] or not self.path.read_bytes().endswith(b"\n")

    def leaf(self) -> str | None:
        """What an outsider takes for the leaf: the last line that has an id, whoever wrote it."""
        return outsider.last_id(str(self.path))

    @staticmethod
    def damage(do: str, path: str) -> None:
        if do == "torn":
            outsider.append_bytes(path, '{"type":"mess')
        elif do == "malformed":
            outsider.append_bytes(path, "{]\n")
        elif do == "delete":
            outsider.delete(path)
        elif do == "replace":
            outsider.replace_with_same(path)
        elif do == "cut":
            outsider.truncate(path, Path(path).read_bytes().index(b"\n") + 1)
        elif do == "edit":
            outsider.edit_at(path, Path(path).read_bytes().index(b'"cwd"') + 8)
        else:
            outsider.append(path, do)

    def bytes(self) -> bytes | None:
        return self.path.read_bytes() if self.path.exists() else None


async def run(root: Path, steps: list[tuple[str, int]]) -> None:
    async with AsyncExitStack() as stack:
        history = History(root, stack)
        await history.begin()
        for do, which in steps:
            await history.step(do, which)
        await history.look()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=1, max_size=20))
@example([("edit", 0), ("metadata", 1), ("metadata", 0)])
@example([("forget", 0), ("edit", 0)])
@example([("forget", 0), ("metadata", 1), ("look", 0), ("metadata", 1), ("own", 0)])
@example([("label", 0), ("metadata", 1), ("own", 0), ("mirror", 0), ("own", 0)])
@example([("label", 0), ("window", 0), ("touch", 0), ("next", 0), ("label", 0)])
@example([("crash", 0), ("user", 0), ("crash", 0), ("own", 0)])
@pytest.mark.promise("P5", "P6")
def test_no_false_and_no_missed_takeover_in_any_history(steps: list[tuple[str, int]]) -> None:
    root = Path(tempfile.mkdtemp(prefix="holdfast-"))
    try:
        asyncio.run(run(root, steps))
    finally:
        shutil.rmtree(root)
