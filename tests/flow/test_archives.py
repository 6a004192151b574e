"""Archives: put away, brought back, deleted; never under somebody's feet, and whole whoever dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import holdfast
from holdfast.store.views import ArchiveView, InUse
from holdfast.testing.world import World

KEY, OTHER = "agent:main:main", "agent:main:slack:direct:U1"


def texts(entries: list[dict[str, object]]) -> list[object]:
    return [entry["message"]["content"] for entry in entries if entry["type"] == "message"]  # type: ignore[index]


async def put_away(world: World, key: str = KEY) -> ArchiveView:
    await world.idle()
    done = await world.hf.session(key).archive(by="a test")
    assert isinstance(done, ArchiveView), done
    return done


def kept(world: World) -> list[Path]:
    return sorted((world.state / "archives").glob("*/*.jsonl"))


async def test_an_archived_conversation_begins_anew_and_what_was_said_is_kept_whole(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.settled(await world.inbound(KEY, "one"))
        await world.idle()
        path = Path((await world.hf.session(KEY).path()) or "")
        before = path.read_bytes()
        archive = await put_away(world)
        [file] = kept(world)
        assert file.read_bytes() == before
        assert (archive.session, archive.why, archive.by, archive.bytes) == (KEY, "asked", "a test", len(before))
        [view] = await world.hf.sessions()
        assert view.archived_at_ms == archive.at_ms
        await world.settled(await world.inbound(KEY, "two"))
        assert await world.said(KEY) == [("user", "two"), ("assistant", "re: two")]
        [view] = await world.hf.sessions()
        assert view.archived_at_ms is None
        assert await world.hf.archives() == [archive]
        await world.check_promises()


async def test_a_restored_conversation_goes_on_where_it_was_and_what_was_said_since_is_archived(
    tmp_path: Path,
) -> None:
    async with World(tmp_path) as world:
        await world.hf.accept(holdfast.InboundEvent(KEY, {"content": "zero"}))
        await world.settled(await world.inbound(KEY, "one"))
        await world.hf.session(KEY).rename("The first")
        archive = await put_away(world)
        assert (await world.hf.sessions())[0].title is None
        await world.settled(await world.inbound(KEY, "two"))
        await world.idle()
        assert await world.hf.session(KEY).restore(archive.id, by="a test") is None
        assert (await world.hf.sessions())[0].title == "The first"
        await world.settled(await world.inbound(KEY, "three"))
        assert [text for _, text in await world.said(KEY)] == [
            "zero", "re: zero", "one", "re: one", "three", "re: three",
        ]  # fmt: skip
        [since] = await world.hf.archives()
        assert since.why == "restored over"
        assert b'"two"' in kept(world)[0].read_bytes()
        await world.check_promises()


async def test_nothing_is_archived_while_a_turn_runs_an_input_waits_or_an_answer_is_on_its_way(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        session = world.hf.session(KEY)
        world.model.hold()
        first = await world.inbound(KEY, "one")
        await world.model.asked(1)
        with pytest.raises(holdfast.SessionBusyError):
            await session.archive(by="a test")
        world.channel.hold()
        world.model.release()
        await world.settled(first)
        refused = await session.archive(by="a test", wait_s=5)
        assert refused == InUse("an answer has not been delivered yet")
        world.channel.release()
        await world.idle()
        async with world.hf.turn(KEY):
            waiting = await world.inbound(KEY, "two")
            again = asyncio.ensure_future(session.archive(by="a test", wait_s=30))
            await asyncio.sleep(0)
        done = await again  # whoever comes first: the input's turn, or the archive that finds it waiting
        in_use = [InUse("an input is open"), InUse("an answer has not been delivered yet")]
        assert isinstance(done, ArchiveView) or done in in_use
        assert (await world.settled(waiting)).state == "answered"
        await world.idle()
        await world.check_promises()


async def test_there_is_nothing_to_archive_in_a_conversation_that_has_just_begun(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.settled(await world.inbound(KEY, "one"))
        await put_away(world)
        assert await world.hf.session(KEY).archive(by="a test") == InUse("there is nothing in it to archive")
        with pytest.raises(holdfast.UnknownSessionError):
            await world.hf.session("agent:main:never").archive(by="a test")
        assert [view.key for view in await world.hf.sessions()] == [KEY]


async def test_other_processes_follow_to_the_new_file_and_call_nothing_a_takeover(tmp_path: Path) -> None:
    async with World(tmp_path) as world, holdfast.open(world.state) as other:
        await world.settled(await world.inbound(KEY, "one"))
        async with other.turn(KEY, wait_s=5) as turn:
            await turn.append(holdfast.custom("note", 1))
        await put_away(world)
        await other.session(KEY).append_metadata(holdfast.label("x", "a label"))
        async with other.turn(KEY, wait_s=5) as turn:
            await turn.append(holdfast.user("from elsewhere"))
            assert [message["content"] for message in await turn.context()] == [
                [{"type": "text", "text": "from elsewhere"}]
            ]  # fmt: skip
        story = await world.story(await world.inbound(KEY, "two"))
        assert "replaced" not in story
        await world.check_promises()


async def test_a_conversation_of_two_keys_is_archived_under_either(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.settled(await world.inbound(OTHER, "one", home=KEY))
        archive = await put_away(world, OTHER)
        assert archive.session == KEY
        assert await world.hf.archives(session=OTHER) == await world.hf.archives(session=KEY) == [archive]
        assert await world.hf.session(KEY).restore(archive.id, by="a test") is None
        assert [text for _, text in await world.said(OTHER)] == ["one", "re: one"]


async def test_an_archive_of_another_session_or_a_damaged_one_is_not_restored(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.settled(await world.inbound(KEY, "one"))
        await world.settled(await world.inbound(OTHER, "two"))
        archive = await put_away(world)
        with pytest.raises(holdfast.UnknownInputError):
            await world.hf.session(OTHER).restore(archive.id, by="a test")
        [file] = kept(world)
        whole = file.read_bytes()
        file.write_bytes(whole[:-10])
        with pytest.raises(holdfast.TranscriptFormatError):
            await world.hf.session(KEY).restore(archive.id, by="a test")
        assert await world.hf.archives() == [archive]
        file.write_bytes(whole)
        assert await world.hf.session(KEY).restore(archive.id, by="a test") is None


async def test_a_deleted_archive_is_gone_for_good(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.settled(await world.inbound(KEY, "one"))
        archive = await put_away(world)
        assert await world.hf.delete_archive(archive.id) == archive.bytes
        assert kept(world) == []
        assert await world.hf.archives() == []
        with pytest.raises(holdfast.UnknownInputError):
            await world.hf.delete_archive(archive.id)
        await world.settled(await world.inbound(KEY, "two"))
        assert [text for _, text in await world.said(KEY)] == ["two", "re: two"]


async def test_a_large_conversation_is_put_away_and_brought_back(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        async with world.hf.turn(KEY) as turn:
            await turn.append(holdfast.user("one"))
            for _ in range(4):
                await turn.append(holdfast.custom("note", "x" * 500_000))
        archive = await put_away(world)
        assert archive.bytes > 2_000_000
        assert await world.hf.session(KEY).restore(archive.id, by="a test") is None
        await world.settled(await world.inbound(KEY, "two"))
        assert [text for _, text in await world.said(KEY)] == ["one", "two", "re: two"]
        await world.check_promises()


async def test_archiving_again_and_again_while_another_process_answers_loses_nothing(tmp_path: Path) -> None:
    """One process takes messages and answers them; another puts the conversation away whenever it may."""
    async with World(tmp_path) as world, holdfast.open(world.state) as other:
        made: list[ArchiveView] = []
        done = asyncio.Event()

        async def archive_on() -> None:
            while not done.is_set():
                try:
                    result = await other.session(KEY).archive(by="a test", wait_s=0.2)
                except (holdfast.SessionBusyError, holdfast.UnknownSessionError):
                    continue
                if isinstance(result, ArchiveView):
                    made.append(result)
                await asyncio.sleep(0.001)

        archiving = asyncio.ensure_future(archive_on())
        try:
            sent = 0
            while sent < 15 or (len(made) < 3 and sent < 300):
                one = await world.inbound(KEY, f"number {sent}")
                await world.idle(passing_s=600)  # a worker that was too late looks again a second later
                view = await world.hf.input(one)
                assert (view.state, view.answer) == ("answered", f"re: number {sent}")
                await asyncio.sleep(0.005)
                sent += 1
        finally:
            done.set()
            await archiving
        assert len(made) >= 3
        assert len(await world.hf.archives()) == len(made)
        await world.check_promises()
