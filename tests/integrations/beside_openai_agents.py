"""openai-agents' sessions in transcripts, its runs as turns. Run by `test_beside.py` in the environment `agents`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import agents  # pyright: ignore[reportMissingImports]  # an environment of its own
import pytest

import holdfast
from holdfast.integrations.openai_agents import TranscriptSession, own, to_v3
from tests.integrations import hundred
from tests.integrations.scene_openai_agents import Answers, call, message, text_of, think
from tests.integrations.scene_plain import said_in

ADA = "agent:main:openai-agents:direct:ada"
Items = list[dict[str, Any]]


@pytest.fixture
async def hf(tmp_path: Path) -> AsyncIterator[holdfast.Holdfast]:
    async with holdfast.open(tmp_path / "state") as opened:
        yield opened


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("scene", ["openai_agents"])
async def test_a_hundred_turns_eight_at_once_keep_each_answer_beside_its_question(scene: str, tmp_path: Path) -> None:
    name = f"tests.integrations.scene_{scene}"
    await hundred.run(name, tmp_path / "state")
    await hundred.check(name, tmp_path / "state")


@pytest.mark.long
async def test_a_hundred_turns_of_four_processes_keep_each_answer_beside_its_question(tmp_path: Path) -> None:
    name = "tests.integrations.scene_openai_agents"
    await hundred.in_four_processes(name, tmp_path / "state")
    await hundred.check(name, tmp_path / "state")


# ── the session: what openai-agents' own tests of its SQLite session ask ─────────────────────────────────────────────


async def test_a_session_is_one_of_openai_agents(hf: holdfast.Holdfast) -> None:
    plain = TranscriptSession("ada", hf)
    assert isinstance(plain, agents.Session)
    assert not hasattr(plain, "run_compaction")


async def test_any_history_of_calls_ends_as_in_the_session_that_openai_agents_ships(hf: holdfast.Holdfast) -> None:
    import random

    draw, theirs = random.Random(7), agents.SQLiteSession("ada")
    for number in range(60):
        ours = TranscriptSession("ada", hf)  # another one each time: nothing depends on its memory
        what = draw.choice(["add", "add", "add", "pop", "get", "clear" if number % 20 == 19 else "add"])
        if what == "add":
            items: Items = [user(f"{number} 😀"), said('it\'s "quoted"; DROP TABLE')][: draw.randint(0, 2)]
            await ours.add_items(items)
            await theirs.add_items(items)
        elif what == "pop":
            assert await ours.pop_item() == await theirs.pop_item()
        elif what == "clear":
            await ours.clear_session()
            await theirs.clear_session()
        for limit in (None, 1, 3, 1000):
            assert await ours.get_items(limit=limit) == await theirs.get_items(limit=limit)
    theirs.close()


async def test_sessions_are_apart_and_an_empty_one_has_nothing_to_take_away(hf: holdfast.Holdfast) -> None:
    one, other = TranscriptSession("one", hf), TranscriptSession("other:thread:1", hf)
    await one.add_items([user("hello")])
    assert await other.get_items() == []
    assert await other.pop_item() is None
    await other.clear_session()
    assert await one.get_items() == [user("hello")]


async def test_the_limit_of_a_sessions_settings_holds_unless_the_call_names_one(hf: holdfast.Holdfast) -> None:
    session = TranscriptSession("ada", hf, session_settings=agents.SessionSettings(limit=2))
    await session.add_items([user(str(number)) for number in range(5)])
    assert [text_of(item) for item in await session.get_items()] == ["3", "4"]
    assert [text_of(item) for item in await session.get_items(limit=4)] == ["1", "2", "3", "4"]


async def test_runs_that_nobody_owns_keep_each_answer_behind_its_question_and_lose_nothing(
    hf: holdfast.Holdfast,
) -> None:
    both_asked = asyncio.Barrier(8)

    async def together(items: list[Any]) -> list[Any]:
        await both_asked.wait()
        return [message(f"answer to {text_of(asked_last(items))}")]

    def asked_last(items: list[Any]) -> Any:
        return items[-1]

    session = TranscriptSession("ada", hf)
    agent = agents.Agent(name="a", model=Answers(together))
    await asyncio.gather(*(agents.Runner.run(agent, f"question {n}", session=session) for n in range(8)))
    found = [(item["role"], text_of(item)) for item in await session.get_items()]
    questions = [text for role, text in found if role == "user"]
    assert sorted(questions) == [f"question {n}" for n in range(8)]
    assert found == [pair for text in questions for pair in (("user", text), ("assistant", f"answer to {text}"))]
    assert sorted(await said_in(hf, ADA)) == sorted(found)
    told = await said_in(hf, ADA)
    assert all(told[at + 1] == ("assistant", f"answer to {told[at][1]}") for at in range(0, 16, 2))


async def test_the_question_of_a_run_that_failed_is_kept_as_openai_agents_keeps_it(hf: holdfast.Holdfast) -> None:
    async def fails(_: list[Any]) -> list[Any]:
        raise ConnectionError("no network")

    session = TranscriptSession("ada", hf)
    with pytest.raises(ConnectionError):
        await agents.Runner.run(agents.Agent(name="a", model=Answers(fails)), "lost?", session=session)
    assert [text_of(item) for item in await session.get_items()] == ["lost?"]


async def test_a_compaction_replaces_what_it_was_given_and_nothing_that_came_meanwhile(hf: holdfast.Holdfast) -> None:
    given: list[int] = []

    async def shorter(items: Items) -> Items:
        given.append(len(items))
        await TranscriptSession("ada", hf).add_items([user("meanwhile")])
        return [said("a summary")]

    session = TranscriptSession("ada", hf, compact=shorter)
    assert isinstance(session, agents.OpenAIResponsesCompactionAwareSession)
    await session.add_items([user("1"), said("2")])
    await session.run_compaction({"force": True})
    assert await session.get_items() == [said("a summary"), user("meanwhile")]
    await session.pop_item()
    assert await TranscriptSession("ada", hf).get_items() == [said("a summary")]
    agent = own(agents.Agent(name="a", model=Answers(think)), hf, compact=shorter)
    assert (await agent.run("hello", session_id="bob")).final_output == "answer to hello"
    assert given == [2, 2]
    assert await agent.session("bob").get_items() == [said("a summary")]


# ── runs as turns ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_run_is_a_turn_and_its_calls_are_on_disk_before_a_tool_starts(hf: holdfast.Holdfast) -> None:
    on_disk: list[str] = []

    @agents.function_tool  # pyright: ignore[reportUntypedFunctionDecorator]
    async def weather(city: str) -> str:
        on_disk.extend(line.message_role or "" for line in await hf.session(ADA).lines() if line.message_role)
        return f"sunny in {city}"

    async def asks(items: list[Any]) -> list[Any]:
        last = items[-1]
        if last.get("type") == "function_call_output":
            return [message(f"{last['output']}, after {len(items)} items")]
        return [call("weather", '{"city": "Oslo"}', f"c{len(items)}")]

    agent = agents.Agent(name="a", model=Answers(asks), tools=[weather])
    first = await own(agent, hf).run("How is the weather?", session_id="ada")
    second = await own(agent, hf).run("And now?", session_id="ada")
    assert (first.final_output, second.final_output) == ("sunny in Oslo, after 3 items", "sunny in Oslo, after 7 items")
    assert on_disk[:2] == ["user", "assistant"]
    roles = [line.message_role for line in await hf.session(ADA).lines() if line.message_role]
    assert roles == ["user", "assistant", "toolResult", "assistant"] * 2
    turns = await hf.turns()
    assert [turn.outcome for turn in turns] == ["answered", "answered"]
    told = [line.text for line in (await hf.why(turns[0].id)).lines]
    assert sum("asked a" in text for text in told) == sum("answered (" in text for text in told) == 2, told


async def test_a_streamed_run_is_a_turn_that_ends_with_its_block(hf: holdfast.Holdfast) -> None:
    owned = own(agents.Agent(name="a", model=Answers(think)), hf)
    async with owned.run_streamed("hello", session_id="ada") as result:
        kinds = [event.type async for event in result.stream_events()]
    assert kinds
    assert result.final_output == "answer to hello"
    assert await said_in(hf, ADA) == [("user", "hello"), ("assistant", "answer to hello")]
    assert [turn.outcome for turn in await hf.turns()] == ["answered"]


async def test_a_streamed_run_that_is_left_half_way_lets_go_of_its_conversation(hf: holdfast.Holdfast) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    async def waits(_: list[Any]) -> list[Any]:
        begun.set()
        await never.wait()
        return []

    owned = own(agents.Agent(name="a", model=Answers(waits)), hf)
    async with owned.run_streamed("hello", session_id="ada"):
        await begun.wait()
    async with hf.turn(ADA, wait_s=0):
        pass
    assert [turn.state for turn in await hf.turns()] == ["settled", "settled"]


async def test_a_run_that_is_cancelled_or_fails_lets_go_of_its_conversation(hf: holdfast.Holdfast) -> None:
    begun = asyncio.Event()

    async def waits(_: list[Any]) -> list[Any]:
        begun.set()
        await asyncio.Event().wait()
        return []

    async def fails(_: list[Any]) -> list[Any]:
        raise ConnectionError("no network")

    task = asyncio.create_task(own(agents.Agent(name="a", model=Answers(waits)), hf).run("1", session_id="ada"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ConnectionError):
        await own(agents.Agent(name="a", model=Answers(fails)), hf).run("2", session_id="ada")
    last = await own(agents.Agent(name="a", model=Answers(think)), hf).run("3", session_id="ada")
    assert last.final_output == "answer to 3"
    assert [turn.state for turn in await hf.turns()] == ["settled"] * 3


async def test_an_answer_that_comes_after_the_conversation_was_lost_is_kept_for_people(
    hf: holdfast.Holdfast, tmp_path: Path
) -> None:
    async def intrudes(_: list[Any]) -> list[Any]:
        path = await hf.session(ADA).path()
        assert path is not None
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        Path(path).write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")  # somebody cuts the last line off
        return [message("finished all the same")]

    with pytest.raises(holdfast.SessionTakeoverError):
        await own(agents.Agent(name="a", model=Answers(intrudes)), hf).run("hello", session_id="ada")
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert [path for path in files if b"finished all the same" in path.read_bytes()]


async def test_the_callers_hooks_are_called_and_its_session_is_refused(hf: holdfast.Holdfast) -> None:
    told: list[str] = []

    class Hooks(agents.RunHooks):  # pyright: ignore[reportUntypedBaseClass]
        async def on_llm_start(self, *_: Any) -> None:
            told.append("start")

        async def on_llm_end(self, *_: Any) -> None:
            told.append("end")

        async def on_agent_end(self, *_: Any) -> None:
            told.append("agent")

    owned = own(agents.Agent(name="a", model=Answers(think)), hf)
    await owned.run("hello", session_id="ada", hooks=Hooks())
    assert told == ["start", "end", "agent"]
    with pytest.raises(holdfast.InputError, match="session_id"):
        await owned.run("hello", session=owned.session("ada"))


def test_odd_items_become_messages_that_a_transcript_takes() -> None:
    items: Items = [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": "x"}],
        },
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{broken"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "[1]"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "out"}]},
        {"type": "web_search_call", "id": "w"},
    ]
    roles = [(one["role"], len(one["content"])) for one in to_v3(items)]
    assert roles == [("user", 2), ("assistant", 3), ("toolResult", 1)]
    assert to_v3(items)[1]["content"][1]["arguments"] == {"text": "{broken"}
