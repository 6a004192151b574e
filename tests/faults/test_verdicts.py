"""The table of verdicts (DESIGN §3, "The prompt window"), each row with another process as the outsider."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.errors import OwnershipLostError, SessionTakeoverError, TranscriptFormatError, TranscriptUnsettledError
from holdfast.inbound.event import Accepted, InboundEvent, Route
from holdfast.kernel import Holdfast
from holdfast.session.fence import Verdict
from holdfast.store.embedded.core import PROOFS_MAX
from holdfast.store.embedded.holding import NeedsProofError
from holdfast.turn.turn import Turn
from tests.faults import outsider
from tests.faults.remote import Remote, RemoteError, Troupe

KEY = "agent:main:main"
ANSWER = "the answer"
WORDS = "session file changed while embedded prompt lock was released"
Call = Callable[[], Awaitable[None]]
Act = tuple[Any, ...] | Call


@dataclass
class Scene:
    """A turn that answers an accepted input, standing in its prompt window."""

    hf: Holdfast
    turn: Turn
    input_id: str

    @property
    def path(self) -> Path:
        return Path(self.turn.transcript.path)

    def ours(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.path.read_bytes().splitlines() if b'"holdfast"' in raw]


async def accept(hf: Holdfast, text: str) -> str:
    event = InboundEvent(KEY, {"content": text}, route=Route("test", "alice"))
    admission = await hf.accept(event)
    assert isinstance(admission, Accepted)
    return admission.input_id


@asynccontextmanager
async def scene(state: Path, **options: Any) -> AsyncIterator[Scene]:
    """One answered exchange, then a turn with its input's line written."""
    async with holdfast.open(state, **options) as hf:
        async with hf.turn(KEY, wait_s=1) as turn:
            await turn.append(holdfast.user("hello"))
            await turn.append(holdfast.assistant("hi there", model="demo/demo"))
        input_id = await accept(hf, "question")
        turn = await hf.claim(KEY, wait_s=1, input_id=input_id)
        assert isinstance(turn, Turn)
        await turn.append_input([{"role": "user", "content": "question"}])
        yield Scene(hf, turn, input_id)


async def leave_window(scene: Scene, *acts: Act, finished: str | None = ANSWER) -> Verdict:
    """The model is asked, the acts happen meanwhile (by an outsider, unless they are calls), the model has answered."""
    async with scene.turn.prompt_window() as window:
        for act in acts:
            if callable(act):
                await act()
            else:
                outsider.run(act[0], str(scene.path), **(act[1] if len(act) > 1 else {}))
        if finished is not None:
            window.finished(finished)
    assert window.verdict is not None
    return window.verdict


def without_fence_folder(state: Path) -> Call:
    async def act() -> None:
        outsider.run("delete_folder", str(state / "fence" / "x"))

    return act


def metadata_by(remote: Remote, kind: str = "label") -> Call:
    async def act() -> None:
        await remote.call("metadata", session=KEY, kind=kind, text="x")

    return act


async def goes_on(scene: Scene, *, parent: str | None) -> None:
    """The turn answers, its line hangs off `parent`, the input is answered and delivered, and the next turn works."""
    before = scene.path.read_bytes()
    line = await scene.turn.append(holdfast.assistant(ANSWER, model="demo/demo"))
    assert await scene.hf.close_turn(scene.turn, None) == "answered"
    after = scene.path.read_bytes()
    assert after.startswith(before)
    written = json.loads(after[len(before) :])
    assert (written["id"], written["parentId"]) == (line, parent)
    assert (await scene.hf.input(scene.input_id)).answer == ANSWER
    assert [one.body for one in await scene.hf.deliveries()] == [ANSWER]
    await next_turn_works(scene.hf)


async def next_turn_works(hf: Holdfast) -> list[str]:
    """Another input is answered on the same session. Returns what was found on taking it."""
    input_id = await accept(hf, "and now?")
    turn = await hf.claim(KEY, wait_s=1, input_id=input_id)
    assert isinstance(turn, Turn)
    await turn.append_input([{"role": "user", "content": "and now?"}])
    async with turn.prompt_window() as window:
        pass
    assert window.verdict is not None
    assert window.verdict.kind == "unchanged"
    await turn.append(holdfast.assistant("fine", model="demo/demo"))
    assert await hf.close_turn(turn, None) == "answered"
    return turn._owned.findings


async def is_lost(scene: Scene, lost: SessionTakeoverError, kind: str) -> None:
    """The turn stops for good, the file stays as the outsider left it, the finished answer is kept and delivered."""
    assert lost.verdict.kind == kind
    assert WORDS in str(lost)
    before = scene.path.read_bytes() if scene.path.is_file() else None
    with pytest.raises(OwnershipLostError):
        await scene.turn.append(holdfast.user("late"))
    with pytest.raises(OwnershipLostError):
        await scene.turn.check()
    with pytest.raises(OwnershipLostError):
        await scene.turn.inspect()
    state = await scene.hf.close_turn(scene.turn, lost)
    assert state == "superseded"
    view = await scene.hf.input(scene.input_id)
    assert (view.state, view.answer) == ("superseded", ANSWER)
    [delivery] = await scene.hf.deliveries()
    assert delivery.body.startswith(ANSWER + "\n\n(The conversation had moved on")
    assert (scene.path.read_bytes() if scene.path.is_file() else None) == before
    if kind != "superseded" and scene.path.parent.exists():
        [kept] = scene.path.parent.glob("*.kept-*")
        assert json.loads(kept.read_bytes())["data"]["text"] == ANSWER


# ── unchanged and advanced ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_window_in_which_nothing_happens_is_unchanged(state: Path) -> None:
    async with scene(state) as one:
        leaf = one.ours()[-1]["id"]
        assert (await leave_window(one)).kind == "unchanged"
        await goes_on(one, parent=leaf)


@pytest.mark.promise("P5")
async def test_own_entries_written_inside_the_window_are_advanced(state: Path) -> None:
    async with scene(state) as one:
        async with one.turn.prompt_window() as window:
            entry_id = await one.turn.append(holdfast.custom("note", 1))
        assert window.verdict is not None
        assert (window.verdict.kind, window.verdict.entries) == ("advanced", (entry_id,))
        await goes_on(one, parent=one.ours()[-1]["id"])


@pytest.mark.parametrize("kind", ["mirror", "label", "session_info", "model_change", "thinking", "custom"])
@pytest.mark.promise("P5")
async def test_metadata_by_another_holdfast_process_is_advanced(state: Path, processes: Troupe, kind: str) -> None:
    async with scene(state) as one:
        other = await processes.start(state)
        async with one.turn.prompt_window() as window:
            line = await other.call("metadata", session=KEY, kind=kind, text="x")
            window.finished(ANSWER)
        assert window.verdict == Verdict("advanced")
        await goes_on(one, parent=line)


# ── adopted ──────────────────────────────────────────────────────────────────────────────────────────────────────────

ADOPTABLE = ["mirror", "label", "session_info", "model_change", "thinking_level_change", "custom"]


@pytest.mark.parametrize("kind", ADOPTABLE)
@pytest.mark.promise("P5")
async def test_an_unrecorded_line_that_is_no_conversation_is_adopted(state: Path, kind: str) -> None:
    async with scene(state) as one:
        leaf = one.ours()[-1]["id"]
        verdict = await leave_window(one, ("append", {"kind": kind}))
        assert (verdict.kind, len(verdict.entries)) == ("adopted", 1)
        await goes_on(one, parent=leaf)


async def test_several_adoptable_lines_hang_off_each_other(state: Path) -> None:
    async with scene(state) as one:
        leaf = one.ours()[-1]["id"]
        verdict = await leave_window(one, *(("append", {"kind": kind}) for kind in ADOPTABLE))
        assert (verdict.kind, len(verdict.entries)) == ("adopted", len(ADOPTABLE))
        await goes_on(one, parent=leaf)


@pytest.mark.parametrize("parent", ["first", "absent"])
async def test_a_mirror_may_hang_anywhere_on_the_active_branch_or_nowhere(state: Path, parent: str) -> None:
    async with scene(state) as one:
        leaf = one.ours()[-1]["id"]
        where = one.ours()[0]["id"] if parent == "first" else "absent"
        verdict = await leave_window(one, ("append", {"kind": "mirror", "parent": where}))
        assert verdict.kind == "adopted"
        await goes_on(one, parent=leaf)


@pytest.mark.parametrize("act", ["touch", "chmod", "hard_link"])
async def test_changed_times_mode_or_link_count_alone_are_adopted(state: Path, act: str) -> None:
    async with scene(state) as one:
        leaf = one.ours()[-1]["id"]
        assert (await leave_window(one, (act,))).kind == "adopted"
        await goes_on(one, parent=leaf)


async def test_a_touch_between_two_appends_is_no_takeover(state: Path) -> None:
    async with scene(state) as one:
        for _ in range(3):
            outsider.run("touch", str(one.path))
            await one.turn.append(holdfast.custom("note", 1))
        await goes_on(one, parent=one.ours()[-1]["id"])


# ── foreign turns ────────────────────────────────────────────────────────────────────────────────────────────────────

FOREIGN: dict[str, dict[str, Any]] = {
    "a user message": {"kind": "user"},
    "an answer": {"kind": "assistant"},
    "a custom message": {"kind": "custom_message"},
    "a compaction": {"kind": "compaction"},
    "a branch summary": {"kind": "branch_summary"},
    "a label off another leaf": {"kind": "label", "parent": "nowhere"},
    "a label without a parent": {"kind": "label", "parent": None},
    "a message off the root": {"kind": "user", "parent": None},
    "a mirror off no branch of ours": {"kind": "mirror", "parent": "nowhere"},
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.promise("P6")
async def test_unrecorded_conversation_is_a_foreign_turn(state: Path, what: str) -> None:
    async with scene(state) as one:
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, ("append", FOREIGN[what]))
        await is_lost(one, lost.value, "foreign_turn")
        found, *mended = await next_turn_works(one.hf)  # the baseline has it now, and says so
        assert found.startswith("between turns: ")
        assert len(mended) == (FOREIGN[what].get("parent") == "nowhere")


@pytest.mark.parametrize("what", FOREIGN)
async def test_in_warn_mode_the_turn_goes_on_after_a_foreign_one(state: Path, what: str) -> None:
    async with scene(state, fence_mode="warn") as one:
        leaf = one.ours()[-1]["id"]
        verdict = await leave_window(one, ("append", FOREIGN[what]))
        assert verdict.kind == "foreign_turn"
        aside = FOREIGN[what]["kind"] == "mirror"
        await goes_on(one, parent=leaf if aside else outsider.last_id(str(one.path)))


async def test_in_warn_mode_the_model_is_shown_what_the_other_turn_said(state: Path) -> None:
    async with scene(state, fence_mode="warn") as one:
        assert len(await one.turn.context()) == 3
        await leave_window(one, ("append", {"kind": "user"}))
        said = json.dumps(await one.turn.context())
        assert "from outside" in said


# ── tampering ────────────────────────────────────────────────────────────────────────────────────────────────────────

TAMPERED: dict[str, list[tuple[Any, ...]]] = {
    "edited in place, same size, times restored": [("edit_in_place",)],
    "edited in place": [("edit_in_place", {"restore_times": False})],
    "edited in place, then a mirror": [("edit_in_place",), ("append", {"kind": "mirror"})],
    "a second header": [("append", {"kind": "header"})],
    "an unknown type": [("append", {"kind": "unknown_type"})],
    "an unknown role": [("append", {"kind": "unknown_role"})],
    "a malformed message of an accepted role": [("append", {"kind": "malformed_message"})],
    "a malformed line": [("append_bytes", {"text": "{]\n"})],
    "a blank line": [("append_bytes", {"text": "\n"})],
    "zeros": [("append_bytes", {"text": "\0" * 64 + "\n"})],
    "a torn tail": [("append_bytes", {"text": '{"type":"mess'})],
    "a mirror, then a torn tail": [("append", {"kind": "mirror"}), ("append_bytes", {"text": "{"})],
    "a user message, then a malformed line": [("append", {"kind": "user"}), ("append_bytes", {"text": "{]\n"})],
    "cut by a line": [("truncate",)],
    "cut within a line": [("truncate", {"leave": 300})],
    "emptied": [("truncate", {"leave": 0})],
    "cut by a line, then a longer one": [("truncate",), ("append", {"kind": "user"}), ("append", {"kind": "user"})],
    "deleted": [("delete",)],
    "deleted and made again": [("recreate",)],
    "renamed over with the same bytes": [("replace_with_same",)],
    "an id that is half an emoji": [("append", {"kind": "user", "id": "\ud83dx"})],
    "a parent that is half an emoji": [("append", {"kind": "label", "parent": "\ud83dx"})],
    "an id used twice": [("append", {"kind": "label", "id": "twice"}), ("append", {"kind": "label", "id": "twice"})],
}
NOT_A_FILE = {
    "a link": [("replace_with_link",)],
    "a folder": [("replace_with_folder",)],
    "a pipe": [("replace_with_pipe",)],
}


@pytest.mark.parametrize("mode", ["strict", "warn"])
@pytest.mark.parametrize("what", TAMPERED)
@pytest.mark.promise("P6")
async def test_damage_is_tampering_whatever_the_mode(state: Path, what: str, mode: str) -> None:
    async with scene(state, fence_mode=mode) as one:
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, *TAMPERED[what])
        await is_lost(one, lost.value, "tampered")
        await next_turn_works(one.hf)


@pytest.mark.parametrize("what", NOT_A_FILE)
@pytest.mark.promise("P6")
async def test_a_transcript_that_is_no_file_any_more_is_tampering(state: Path, what: str) -> None:
    async with scene(state) as one:
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, *NOT_A_FILE[what])
        await is_lost(one, lost.value, "tampered")
        with pytest.raises(TranscriptFormatError):
            await one.hf.claim(KEY, wait_s=1)
        if one.path.is_dir():
            one.path.rmdir()
        else:
            one.path.unlink()
        assert any("deleted" in found for found in await next_turn_works(one.hf))


async def test_a_session_folder_that_is_gone_is_tampering_and_made_again(state: Path) -> None:
    async with scene(state) as one:
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, ("delete_folder",))
        assert lost.value.verdict.kind == "tampered"
        assert await one.hf.close_turn(one.turn, lost.value) == "superseded"
        assert any("deleted" in found for found in await next_turn_works(one.hf))


async def test_the_strongest_finding_wins(state: Path) -> None:
    async with scene(state, fence_mode="warn") as one:
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, ("append", {"kind": "user"}), ("append_bytes", {"text": "{]\n"}))
        await is_lost(one, lost.value, "tampered")


async def test_damage_is_found_by_the_next_append_without_a_window(state: Path) -> None:
    async with scene(state) as one:
        outsider.run("append", str(one.path), kind="user")
        before = one.path.read_bytes()
        with pytest.raises(SessionTakeoverError) as lost:
            await one.turn.append(holdfast.assistant(ANSWER, model="demo/demo"))
        assert lost.value.verdict.kind == "foreign_turn"
        assert one.path.read_bytes() == before
        await is_lost(one, lost.value, "foreign_turn")


async def test_an_unfinished_turn_that_is_lost_gives_its_input_back(state: Path) -> None:
    async with scene(state) as one:
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, ("append", {"kind": "user"}), finished=None)
        assert await one.hf.close_turn(one.turn, lost.value) == "queued"
        again = await one.hf.claim(KEY, wait_s=1, input_id=one.input_id)
        assert isinstance(again, Turn)
        assert again.attempt == 2
        before = one.path.read_bytes()
        await again.append_input([{"role": "user", "content": "question"}])
        assert one.path.read_bytes() == before  # its line is there from the first attempt
        await again.append(holdfast.assistant(ANSWER, model="demo/demo"))
        assert await one.hf.close_turn(again, None) == "answered"


# ── nobody launders ──────────────────────────────────────────────────────────────────────────────────────────────────

LAUNDRY: dict[str, tuple[list[tuple[Any, ...]], str]] = {
    "a user message": ([("append", {"kind": "user"})], "foreign_turn"),
    "an edit in place": ([("edit_in_place",)], "tampered"),
    "a malformed line": ([("append_bytes", {"text": "{]\n"})], "tampered"),
    "cut and grown": ([("truncate",), ("append", {"kind": "user"}), ("append", {"kind": "user"})], "tampered"),
}


@pytest.mark.parametrize("writers", [1, 3])
@pytest.mark.parametrize("what", LAUNDRY)
@pytest.mark.promise("P6")
async def test_a_metadata_writer_launders_nothing(state: Path, processes: Troupe, what: str, writers: int) -> None:
    acts, kind = LAUNDRY[what]
    async with scene(state) as one:
        other = await processes.start(state)

        async def title() -> None:
            await one.hf.session(KEY).append_metadata(holdfast.session_info("mine"))

        mirrors = [metadata_by(other, "mirror")] * writers
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, metadata_by(other), *acts, *mirrors, title)
        await is_lost(one, lost.value, kind)
        await next_turn_works(one.hf)


@pytest.mark.parametrize("act", ["touch", "append"])
async def test_a_metadata_writer_after_a_harmless_change_costs_the_turn_nothing(
    state: Path, processes: Troupe, act: str
) -> None:
    async with scene(state) as one:
        other = await processes.start(state)
        async with one.turn.prompt_window() as window:
            outsider.run(act, str(one.path), **({"kind": "label"} if act == "append" else {}))
            await other.call("metadata", session=KEY, kind="label", text="x")
            line = await other.call("metadata", session=KEY, kind="mirror", text="x")
        assert window.verdict is not None
        assert window.verdict.kind == "adopted"
        await goes_on(one, parent=line)


UNCLEAR = {"cut": "truncate", "made again": "recreate", "deleted": "delete", "torn": "append_bytes"}


@pytest.mark.parametrize("what", UNCLEAR)
async def test_a_metadata_writer_writes_nothing_where_the_end_is_unclear(
    state: Path, processes: Troupe, what: str
) -> None:
    async with scene(state) as one:
        other = await processes.start(state)
        await metadata_by(other)()

        async def refused() -> None:
            before = one.path.read_bytes() if one.path.exists() else None
            with pytest.raises(TranscriptUnsettledError):
                await one.hf.session(KEY).append_metadata(holdfast.session_info("mine"))
            assert (one.path.read_bytes() if one.path.exists() else None) == before

        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, (UNCLEAR[what], {"text": '{"type":'} if what == "torn" else {}), refused)
        await is_lost(one, lost.value, "tampered")


async def test_metadata_is_written_to_a_session_that_nobody_owns_after_an_outsider_was_there(state: Path) -> None:
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY, wait_s=1) as turn:
            await turn.append(holdfast.user("hello"))
            path = turn.transcript.path
        outsider.run("append", path, kind="user")
        outsider.run("append_bytes", path, text='{"torn')
        line = await hf.session(KEY).append_metadata(holdfast.session_info("mine"))
        assert Path(path).read_bytes().splitlines()[-2] == b'{"torn'
        assert json.loads(Path(path).read_bytes().splitlines()[-1])["id"] == line
        await next_turn_works(hf)


# ── the record is not there, or not of this time ─────────────────────────────────────────────────────────────────────


@pytest.mark.promise("P5")
async def test_a_record_that_vanishes_within_a_window_takes_nothing_away(state: Path) -> None:
    async with scene(state) as one:
        leaf = one.ours()[-1]["id"]
        async with one.turn.prompt_window() as window:
            for file in (state / "fence").iterdir():
                file.unlink()
        assert window.verdict is not None
        assert window.verdict.kind == "unchanged"
        await goes_on(one, parent=leaf)


async def test_the_whole_fence_folder_may_vanish_within_a_window(state: Path) -> None:
    async with scene(state) as one:
        leaf = one.ours()[-1]["id"]
        async with one.turn.prompt_window() as window:
            outsider.run("delete_folder", str(state / "fence" / "x"))
        assert window.verdict is not None
        assert window.verdict.kind == "unchanged"
        await goes_on(one, parent=leaf)


@pytest.mark.parametrize("damage", [b"", b"\0" * 4096, b"garbage" * 600, None])
async def test_a_damaged_record_takes_nothing_away(state: Path, damage: bytes | None) -> None:
    async with scene(state) as one:
        leaf = one.ours()[-1]["id"]
        async with one.turn.prompt_window() as window:
            for file in (state / "fence").glob("t_*"):
                if file.suffix == "":
                    whole = file.read_bytes()
                    file.write_bytes(whole[:100] if damage is None else damage)
        assert window.verdict is not None
        assert window.verdict.kind == "unchanged"
        await goes_on(one, parent=leaf)


@pytest.mark.parametrize("what", ["a user message", "a compaction"])
@pytest.mark.promise("P6")
async def test_a_vanished_record_hides_no_foreign_turn(state: Path, what: str) -> None:
    async with scene(state) as one:
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, without_fence_folder(state), ("append", FOREIGN[what]))
        await is_lost(one, lost.value, "foreign_turn")
        await next_turn_works(one.hf)


@pytest.mark.promise("P6")
async def test_a_vanished_record_hides_no_edit_in_place(state: Path) -> None:
    async with scene(state) as one:
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, ("edit_in_place",), without_fence_folder(state))
        await is_lost(one, lost.value, "tampered")


async def test_metadata_by_another_process_after_the_record_vanished_is_no_takeover(
    state: Path, processes: Troupe
) -> None:
    async with scene(state) as one:
        other = await processes.start(state)
        await metadata_by(other)()

        async def try_to_write() -> None:
            with pytest.raises(RemoteError, match="no current record"):
                await metadata_by(other)()
            await one.turn.check()  # the owner looks, and makes the record again
            await metadata_by(other)()

        # "adopted" by the look inside: without a record the file's times cannot be known as ours
        assert (await leave_window(one, without_fence_folder(state), try_to_write)).kind in ("advanced", "adopted")
        await one.turn.append(holdfast.assistant(ANSWER, model="demo/demo"))
        assert await one.hf.close_turn(one.turn, None) == "answered"
        await next_turn_works(one.hf)


@pytest.mark.parametrize("by", ["another task", "another process"])
@pytest.mark.parametrize("what", ["cut", "edited", "nothing"])
async def test_a_vanished_record_hides_no_damage_to_what_others_had_recorded_since(
    state: Path, processes: Troupe, by: str, what: str
) -> None:
    """The owner has not looked since the metadata was written: it is remembered elsewhere how far the file reached."""
    async with scene(state) as one:
        other = await processes.start(state)
        size = one.path.stat().st_size

        async def write() -> None:
            if by == "another process":
                await metadata_by(other)()
            else:
                await one.hf.session(KEY).append_metadata(holdfast.session_info("x"))

        damage: dict[str, Act] = {"cut": ("truncate", {"leave": size}), "edited": ("edit_at", {"at": size + 3})}
        if what == "nothing":
            assert (await leave_window(one, write, without_fence_folder(state))).kind in ("advanced", "adopted")
            return
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, write, damage[what], without_fence_folder(state))
        await is_lost(one, lost.value, "tampered")
        await next_turn_works(one.hf)


@pytest.mark.promise("P2", "I4")
async def test_a_ledger_older_than_the_transcript_gives_no_old_epoch_and_answers_nothing_twice(
    state: Path, tmp_path: Path
) -> None:
    """The ledger is put back to before the answer, as from a backup; everybody is stopped meanwhile."""
    async with holdfast.open(state) as hf:
        input_id = await accept(hf, "question")
    ledger = state / "ledger.sqlite3"
    kept = ledger.read_bytes()
    async with holdfast.open(state) as hf:
        turn = await hf.claim(KEY, wait_s=1, input_id=input_id)
        assert isinstance(turn, Turn)
        await turn.append_input([{"role": "user", "content": "question"}])
        await turn.append(holdfast.assistant(ANSWER, model="demo/demo"))
        assert await hf.close_turn(turn, None) == "answered"
        path, epoch = Path(turn.transcript.path), turn.epoch.number
    before = path.read_bytes()
    for leftover in state.glob("ledger.sqlite3*"):
        leftover.unlink()
    ledger.write_bytes(kept)
    async with holdfast.open(state) as hf:
        assert (await hf.input(input_id)).state == "queued"
        gone = await hf.claim(KEY, wait_s=1, input_id=input_id)
        assert not isinstance(gone, Turn)
        view = await hf.input(input_id)
        assert (view.state, view.answer) == ("answered", ANSWER)
        assert path.read_bytes() == before
        later = await hf.claim(KEY, wait_s=1)
        assert isinstance(later, Turn)
        assert later.epoch.number > epoch
        await hf.close_turn(later, None)


# ── files never seen before ──────────────────────────────────────────────────────────────────────────────────────────


def write_foreign_transcript(path: Path, lines: int, line_bytes: int = 0) -> None:
    """A transcript of another program: header, then `lines` user messages."""
    at = "2026-05-22T10:00:00.000Z"
    out = [json.dumps({"type": "session", "version": 3, "id": "s", "timestamp": at, "cwd": "/"})]
    parent = None
    for number in range(lines):
        content = [{"type": "text", "text": f"{number} " + "x" * line_bytes}]
        entry: dict[str, Any] = {"type": "message", "id": f"m{number}", "parentId": parent, "timestamp": at}
        entry["message"] = {"role": "user", "content": content, "timestamp": 1}
        out.append(json.dumps(entry))
        parent = entry["id"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(out) + "\n")


async def place_of(state: Path, key: str = KEY) -> Path:
    """Where a session's transcript would be; the state directory is made, the session is not."""
    async with holdfast.open(state) as hf:
        return hf.store.state.transcript_path(key)  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_file_of_a_thousand_lines_never_seen_before_is_extended(state: Path) -> None:
    path = await place_of(state)
    write_foreign_transcript(path, 1000)
    before = path.read_bytes()
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY, wait_s=1) as turn:
            outsider.run("touch", str(path))
            await turn.append(holdfast.user("mine"))
        after = path.read_bytes()
        assert after.startswith(before)
        assert json.loads(after[len(before) :])["parentId"] == "m999"
        await next_turn_works(hf)


LARGE = {"touch": {}, "append": {"kind": "label"}}


@pytest.mark.parametrize("act", LARGE)
@pytest.mark.promise("P6", "P10")
async def test_a_large_file_is_chained_in_the_background_and_then_judged_like_any_other(state: Path, act: str) -> None:
    write_foreign_transcript(await place_of(state), 100, line_bytes=30_000)
    async with scene(state) as one:
        await chained(one)
        leaf = one.ours()[-1]["id"]
        assert (await leave_window(one, (act, LARGE[act]))).kind == "adopted"
        await goes_on(one, parent=leaf)


async def test_an_edit_inside_a_large_file_is_found_once_it_is_chained(state: Path) -> None:
    path = await place_of(state)
    write_foreign_transcript(path, 100, line_bytes=30_000)
    async with scene(state) as one:
        await chained(one)
        with pytest.raises(SessionTakeoverError) as lost:
            await leave_window(one, ("edit_at", {"at": 50_000}))
        await is_lost(one, lost.value, "tampered")
        await next_turn_works(one.hf)


async def chained(scene: Scene) -> None:
    """Wait until the background has read the prefix: the record then has a digest of it."""
    while not scene.turn._owned.file.record.peek().has_chain():  # pyright: ignore[reportAttributeAccessIssue]
        await scene.hf.clock.sleep(0.005)


async def test_a_change_before_a_large_file_is_chained_is_a_foreign_turn(state: Path) -> None:
    """Where the outsider is slower than the background, the label is adopted like any other."""
    write_foreign_transcript(await place_of(state), 100, line_bytes=30_000)
    async with holdfast.open(state) as hf:
        turn = await hf.claim(KEY, wait_s=1)
        assert isinstance(turn, Turn)
        path = turn.transcript.path
        outsider.append(path, "label")  # in this process: quicker than starting another
        try:
            found = (await turn.inspect()).kind
        except SessionTakeoverError as lost:
            found = lost.verdict.kind
        had_chain = turn._owned.file.record.peek().has_chain()  # pyright: ignore[reportAttributeAccessIssue]
        assert found == ("adopted" if had_chain else "foreign_turn")
        await hf.close_turn(turn, None)
        await next_turn_works(hf)


async def test_a_large_file_changed_between_turns_survives_a_death_right_after_the_claim(
    state: Path, processes: Troupe
) -> None:
    path = await place_of(state)
    write_foreign_transcript(path, 100, line_bytes=30_000)
    first = await processes.start(state)
    await first.call("claim", turn="t", session=KEY, wait_s=1)
    await first.call("append", turn="t", kind="user", text="one")
    await first.call("settle", turn="t")
    outsider.run("append", str(path), kind="label")
    await first.call("claim", turn="t", session=KEY, wait_s=1)
    await first.call("append", turn="t", kind="user", text="two")
    await first.kill()
    before = path.read_bytes()
    async with holdfast.open(state) as hf:
        await next_turn_works(hf)
    assert path.read_bytes().startswith(before)


async def test_a_file_that_others_never_let_rest_is_judged_while_the_lock_is_held(tmp_path: Path) -> None:
    """Found beside a live OpenClaw: each time the prefix has been hashed outside the lock somebody has written again.
    The last time it is hashed under the lock, up to where the record is now: our own metadata has moved it.
    """
    async with scene(tmp_path / "state") as now:
        owned = now.turn.owned
        await now.hf.session(KEY).append_metadata(holdfast.label("x", "ours"))
        store: Any = now.hf.store

        def act(proof: Any) -> Verdict:
            if store_attempts.pop():
                outsider.append(str(now.path), "mirror")
                raise NeedsProofError
            return owned.file.inspect(owned.claim, proof)  # type: ignore[attr-defined]

        store_attempts = [False, *[True] * (PROOFS_MAX - 1)]
        found = store.with_lock_blocking(owned.file, act, owned)  # type: ignore[attr-defined]
        assert (found.kind, store_attempts) == ("adopted", [])
        assert (await now.turn.inspect()).kind == "unchanged"
