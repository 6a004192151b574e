"""A provider that does not take the history is asked again without what it refuses, and so is every later turn."""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import ProviderError
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.turn.asking import AgentSettings

SESSION = "agent:main:main"
REFUSED = "messages.1.content.0: Invalid `signature` in `thinking` block"
AGENT = AgentSettings(model="scripted/first", fallbacks=("scripted/second",))


def thinking_in(model: ScriptedModel, nth: int) -> list[str]:
    parts = [part for message in model.requests[nth - 1].messages for part in message["content"]]
    return [part["thinking"] for part in parts if part["type"] == "thinking"]


async def test_the_same_model_is_asked_once_more_without_thinking_and_later_turns_are_shown_none(
    tmp_path: Path,
) -> None:
    model = ScriptedModel(Reply("one", thinking="hm"), ProviderError(REFUSED, status=400), "two", "three")
    async with World(tmp_path, model=model, agent=AGENT) as world:
        for text in ("a", "b", "c"):
            await world.settled(await world.inbound(SESSION, text))
        await world.idle()
        assert [one.text for one in world.channel.received] == ["one", "two", "three"]
        assert [request.model for request in model.requests] == ["scripted/first"] * 4
        assert [thinking_in(model, nth) for nth in (2, 3, 4)] == [["hm"], [], []]
        [note] = [
            line for line in await world.transcript(SESSION) if line.get("customType") == "holdfast:history_refused"
        ]
        assert note["data"]["why"] == REFUSED
        assert ("assistant", "one") in await world.said(SESSION)


async def test_a_history_that_is_refused_even_so_is_a_failure_like_others(tmp_path: Path) -> None:
    refused = ProviderError(REFUSED, status=400)
    model = ScriptedModel(refused, ProviderError(REFUSED, status=400), "from the second")
    async with World(tmp_path, model=model, agent=AGENT) as world:
        view = await world.settled(await world.inbound(SESSION, "a"))
        assert view.answer == "from the second"
        assert [request.model for request in model.requests] == ["scripted/first", "scripted/first", "scripted/second"]
        assert "did not take the history" in await world.story(view.id)
