"""Transcripts that are written anew when a turn claims them: older formats, unreadable lines. The original is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import TranscriptUnsettledError
from holdfast.store.embedded import baseline, mending
from tests.faults import checks, outsider
from tests.faults.remote import Troupe
from tests.faults.test_odd_files import KEY, place

V1 = (
    b'{"type":"session","id":"s","timestamp":"t","cwd":"/"}\n'
    b'{"type":"message","timestamp":"t","message":{"role":"user","content":"one"}}\n'
    b'{"type":"message","timestamp":"t","message":{"role":"assistant","content":[{"type":"text","text":"two"}]}}\n'
)
V2 = (
    b'{"type":"session","version":2,"id":"s","timestamp":"t","cwd":"/"}\n'
    b'{"type":"message","id":"a","parentId":null,"message":{"role":"hookMessage","customType":"k","content":"one"}}\n'
    b'{"type":"message","id":"b","parentId":"a","message":{"role":"assistant","content":[{"type":"text","text":"two"}]}}\n'
)


def originals(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.original-*"))


async def says(state: Path, text: str) -> list[str]:
    """One turn; returns what it was shown, as texts."""
    async with holdfast.open(state) as hf, hf.turn(KEY, wait_s=5) as turn:
        context = await turn.context()
        await turn.append(holdfast.user(text))
        return [part["text"] for message in context for part in message["content"]]


@pytest.mark.parametrize("older", [V1, V2], ids=["format 1", "format 2"])
async def test_an_older_format_is_lifted_once_and_kept(state: Path, older: bytes) -> None:
    path = await place(state)
    path.write_bytes(older)
    assert await says(state, "three") == ["one", "two"]
    assert await says(state, "four") == ["one", "two", "three"]
    lines = checks.entries(path)
    checks.check_transcript(lines)
    assert lines[0]["version"] == 3
    (original,) = originals(path)
    assert original.read_bytes() == older
    assert [line.get("customType") for line in lines].count("holdfast:repair") == 1
    assert (path.stat().st_mode & 0o777, list(path.parent.glob(".*draft*"))) == (0o600, [])


async def test_readers_see_an_older_format_without_changing_it(state: Path) -> None:
    path = await place(state)
    path.write_bytes(V1)
    async with holdfast.open(state) as hf:
        await hf.store.transcript_of(KEY)
        assert len(await hf.session(KEY).entries()) == 2
        with pytest.raises(TranscriptUnsettledError, match="session format 1"):
            await hf.session(KEY).append_metadata(holdfast.session_info("title"))
    assert path.read_bytes() == V1
    assert originals(path) == []


async def test_metadata_after_a_torn_tail_leaves_it_for_the_next_turn_to_mend(state: Path) -> None:
    await says(state, "one")
    path = next(iter(checks.transcripts(state)))
    outsider.append_bytes(str(path), '{"torn')
    async with holdfast.open(state) as hf:
        await hf.session(KEY).append_metadata(holdfast.session_info("title"))
        assert path.read_bytes().splitlines()[-2] == b'{"torn'
    assert await says(state, "two") == ["one"]
    checks.check_transcript(checks.entries(path))
    assert checks.TORN_BY_OTHERS not in path.read_bytes().splitlines()
    assert checks.TORN_BY_OTHERS in originals(path)[0].read_bytes().splitlines()


async def test_a_large_file_is_anchored_at_its_end_and_lifted_all_the_same(
    state: Path,
) -> None:
    path = await place(state)
    message = {"role": "user", "content": "x" * 1000}
    lines = [json.dumps({"type": "message", "timestamp": "t", "message": message}).encode() for _ in range(1500)]
    path.write_bytes(b"\n".join([V1.splitlines()[0], *lines]) + b"\n")
    assert path.stat().st_size > baseline.CHAIN_AT_ONCE_BYTES
    async with holdfast.open(state) as hf, hf.turn(KEY, wait_s=5) as turn:
        outsider.touch(str(path))  # the whole prefix has to be proven again
        async with turn.prompt_window() as window:
            pass
        assert window.verdict is not None
        assert window.verdict.kind == "adopted"
        await turn.append(holdfast.user("y"))
    found = checks.entries(path)
    checks.check_transcript(found)
    assert len(found) == 1503


async def test_another_process_that_has_the_old_file_open_goes_on_in_the_new_one(
    state: Path, processes: Troupe
) -> None:
    one = await processes.start(state)
    await one.call("claim", turn="t", session=KEY, wait_s=5)
    await one.call("append", turn="t", kind="user", text="one")
    await one.call("settle", turn="t")
    path = next(iter(checks.transcripts(state)))
    outsider.append_bytes(str(path), '{"torn')
    await says(state, "two")
    await one.call("metadata", session=KEY, kind="session_info", text="title")
    await one.call("claim", turn="u", session=KEY, wait_s=5)
    await one.call("append", turn="u", kind="user", text="three")
    await one.call("settle", turn="u")
    lines = checks.entries(path)
    checks.check_transcript(lines)
    assert [checks.text_of(line) for line in lines if line["type"] == "message"] == ["one", "two", "three"]
    assert len(originals(path)) == 1


async def test_an_answer_in_a_mended_file_settles_its_input(state: Path, processes: Troupe) -> None:
    """Offsets noted before the mending mean nothing afterwards."""
    one = await processes.start(state)
    input_id = (await one.call("accept", session=KEY, text="question"))["id"]
    await one.call("arm", point="settle.after_sync")
    await one.call("work", script=["the answer"])
    await one.dies()
    (path,) = checks.transcripts(state)
    data = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([data[0], b'{"torn\n', *data[1:]]))
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY, wait_s=5) as turn:
            await turn.append(holdfast.user("next"))
        view = await hf.input(input_id)
        assert (view.state, view.answer) == ("answered", "the answer")
    checks.check(state, accepted={input_id: "question"})


async def test_without_links_the_original_is_copied(tmp_path: Path) -> None:
    path, original = tmp_path / "a", tmp_path / "b"
    path.write_text("x")
    original.write_text("")  # a name that is taken: no link can be made
    mending.keep_original(path, original)
    assert original.read_text() == "x"
