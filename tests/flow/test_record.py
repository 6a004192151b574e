"""The scenario of record: a heartbeat streams for minutes, and everybody else talks to the same conversation meanwhile.

Two gateways as processes of their own on one state, a real client, a command, a webhook; the heartbeat's model is a
server on loopback whose answer comes word by word when the test lets it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import holdfast
from holdfast.store.views import InputView
from holdfast.testing import wire
from holdfast.testing.provider import ProviderStub, Scene
from tests.flow import gateway_with_tool
from tests.flow.test_gateway_process import START_S, Started, started

SESSION = "agent:main:console:direct:alice"
TOKEN = "hooks-token-of-the-test"
WORDS = 180
CONFIG = """
[models]
default = "demo/fast"
fallbacks = ["demo/backup"]
[models.providers.stub]
base_url = "{url}/v1"
api_key = "any"
[identities]
alice = ["console:alice", "slack:U1"]
[heartbeat]
session = "{session}"
every = "10h"
timeout_s = 3600
model = "stub/beat"
isolated = {isolated}
target = "console:alice"
[cron.jobs.mail]
cron = "0 0 1 1 *"
message = "look at the mail"
target = "session:{session}"
to = "console:alice"
[hooks]
enabled = true
[hooks.mappings.build]
session = "{session}"
message = "build {{{{ number }}}}"
route = "console:alice"
"""
WHERE = [{"channel": "console", "peer": "alice"}, {"channel": "slack", "peer": "U1"}]
"""One person, on two channels: two keys, one transcript."""
DONE = {"answered", "steered", "merged"}
ARMED = """
[recovery]
live_owners = "ask"
warn_s = {warn_s}
abort_s = {abort_s}
[turn]
beat_s = 1.0
tool_seconds_max = 700
[tools.lanes.heartbeat]
allow = ["hush"]
"""
SAID = " ".join(f"word{n}" for n in range(WORDS))


@dataclass(frozen=True)
class Town:
    """Both gateways, and the server that the heartbeat asks."""

    gateways: tuple[Started, Started]
    addresses: tuple[str, str]
    stub: ProviderStub
    state: Path

    async def post(self, at: int, path: str, body: dict[str, Any], *, token: str | None = None) -> dict[str, Any]:
        token = token or (self.state / "token").read_text().strip()
        async with httpx.AsyncClient(base_url=self.addresses[at], timeout=START_S) as http:
            answer = await http.post(path, json=body, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def say(self, at: int, where: dict[str, str], text: str) -> str:
        return (await self.post(at, "/api/messages", {"text": text, "route": "console:alice", **where}))["id"]

    async def hook(self, at: int, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self.post(at, f"/hooks/{name}", body, token=TOKEN)

    async def command(self, *words: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "holdfast", "--state", str(self.state), *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()

    async def inputs(self) -> list[InputView]:
        """Oldest first."""
        async with holdfast.open_reader(self.state) as hf:
            return (await hf.inputs(limit=100))[::-1]

    async def until_settled(self, count: int, *, but: str | None = None) -> list[InputView]:
        """Wait for `count` inputs in all, each settled, with the exception of one."""
        async with asyncio.timeout(START_S):
            while True:
                seen = await self.inputs()
                if len(seen) >= count and all(one.settled for one in seen if one.id != but):
                    return seen
                await asyncio.sleep(0.1)

    async def until_told_of(self, tool: str, *, times: int) -> None:
        """Wait until a turn in this tool was told of so often; nobody may have asked it to end."""
        async with asyncio.timeout(START_S + 700):
            while True:
                async with holdfast.open_reader(self.state) as hf:
                    marks = await hf.store.marks()
                assert not [mark for mark in marks if mark.asked], marks
                if any(mark.told >= times for mark in marks):
                    return
                await asyncio.sleep(0.2)


@asynccontextmanager
async def town(
    tmp_path: Path, *scenes: Scene, isolated: bool, armed: str = "", hush_until: Path | None = None
) -> AsyncIterator[Town]:
    """`hush_until`: the file that ends the tool `hush`, which the gateways have only then."""
    async with ProviderStub() as stub:
        stub.play(*scenes)
        file = tmp_path / "holdfast.toml"
        file.write_text(CONFIG.format(url=stub.url, isolated=str(isolated).lower(), session=SESSION) + armed)
        options, program = ("--port", "0", "--config", str(file)), None
        if hush_until is not None:
            options, program = (str(file), str(hush_until)), Path(gateway_with_tool.__file__)
        env = {"HOLDFAST_HOOKS_TOKEN": TOKEN}
        async with started(tmp_path / "state", *options, env=env, program=program) as one:
            first = one.told["address"]
            async with started(tmp_path / "state", *options, env=env, program=program) as two:
                yield Town((one, two), (first, two.told["address"]), stub, tmp_path / "state")


async def speak(stub: ProviderStub, words: int, word_s: float) -> None:
    """Let the heartbeat's model say so many words."""
    for _ in range(words):
        stub.tick()
        await asyncio.sleep(word_s)  # the pace is the scenario's own


async def play(tmp_path: Path, *, isolated: bool, word_s: float, keys: int) -> None:
    async with town(tmp_path, Scene(wire.openai(SAID), paced=True), isolated=isolated) as here:
        await here.hook(1, "wake", {"text": "look around"})
        async with asyncio.timeout(START_S):
            await here.stub.asked(1)
        [beat] = await here.inputs()
        speaking = asyncio.create_task(speak(here.stub, WORDS - 20, word_s))
        await here.hook(1, "build", {"number": 7})
        await here.command("cron", "run", "mail")
        users = [await here.say(n % 2, WHERE[n % keys], f"message {n}") for n in range(4)]
        if isolated:
            seen = await here.until_settled(7, but=beat.id)
            assert not next(one for one in seen if one.id == beat.id).settled, "nobody waited for the heartbeat"
        await speaking
        here.stub.tick(1000)
        seen = await here.until_settled(8 if isolated else 7)
        await check(here, seen, users, shared=not isolated)
        assert len(here.stub.requests) == 1, "nobody asked the heartbeat's model again"


async def play_armed(
    tmp_path: Path, *, isolated: bool, word_s: float, warn_s: float, silent_s: float, told: int
) -> None:
    """The same with turns that stand still asked to end: the heartbeat streams, then its tool says nothing, until it
    has been told of so often and for `silent_s` at least.
    """
    ended = tmp_path / "ended"
    stream = wire.openai(SAID, finish="tool_calls", calls=[("call_1", "hush", "{}")])
    scenes = Scene(stream, paced=True), Scene(wire.openai("All is well."))
    armed = ARMED.format(warn_s=warn_s, abort_s=3 * warn_s)
    async with town(tmp_path, *scenes, isolated=isolated, armed=armed, hush_until=ended) as here:
        await here.hook(1, "wake", {"text": "look around"})
        async with asyncio.timeout(START_S):
            await here.stub.asked(1)
        users = [await here.say(n % 2, WHERE[n % 2], f"message {n}") for n in range(2)]
        await speak(here.stub, WORDS, word_s)
        here.stub.tick(1000)
        await here.hook(0, "build", {"number": 7})
        silent = asyncio.create_task(asyncio.sleep(silent_s))
        users += [await here.say(n % 2, WHERE[n % 2], f"message {n}") for n in range(2, 4)]
        await here.until_told_of("hush", times=told)
        await silent
        [beat] = [one for one in await here.inputs() if one.source == "heartbeat"]
        assert not beat.settled, "it was left alone"
        ended.touch()
        seen = await here.until_settled(7 if isolated else 6)
        await check(here, seen, users, shared=not isolated)
        assert len(here.stub.requests) == 2, "once before the tool, once after it"
        assert len([one for one in here.stub.requests[1].body["messages"] if one["role"] == "tool"]) == 1


async def check(here: Town, seen: list[InputView], users: list[str], *, shared: bool) -> None:
    assert all(gateway.process.returncode is None for gateway in here.gateways)
    assert {one.state for one in seen} <= DONE, [(one.source, one.state, one.detail) for one in seen]
    async with holdfast.open_reader(here.state) as hf:
        turns = [turn for one in seen for turn in await hf.store.turns_of(one.id)]
        stories = [line.text for one in seen for line in (await hf.why(one.id)).lines]
    gave_way = [turn for turn in turns if "gave way to" in (turn.detail or "")]
    assert {turn.outcome for turn in turns if turn not in gave_way} == {"answered"}, turns
    assert len(gave_way) <= 1, "a machine's turn steps back for all who wait at once"
    assert len({turn.id for turn in turns}) == len(turns)
    assert not [text for text in stories if "fallback" in text or "demo/backup" in text or "taken over" in text]
    if shared:
        began = {one.id: min(turn.started_at_ms for turn in turns if turn.input_id == one.id) for one in seen
                 if any(turn.input_id == one.id for turn in turns)}  # fmt: skip
        machines = [began[one.id] for one in seen if one.lane != "main" and one.source != "heartbeat"]
        assert max(began[one] for one in users if one in began) <= min(machines), "users first"


@pytest.mark.parametrize("isolated", [True, False])
async def test_a_heartbeat_that_streams_while_everybody_talks(tmp_path: Path, isolated: bool) -> None:
    await play(tmp_path, isolated=isolated, word_s=0.01, keys=2)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("isolated", "keys"), [(True, 1), (True, 2), (False, 1), (False, 2)])
async def test_a_heartbeat_that_streams_for_three_minutes_while_everybody_talks(
    tmp_path: Path, isolated: bool, keys: int
) -> None:
    await play(tmp_path, isolated=isolated, word_s=180 / WORDS, keys=keys)


@pytest.mark.promise("P9")
@pytest.mark.parametrize("isolated", [True, False])
async def test_a_tool_in_silence_is_left_alone_by_two_gateways_that_recover_what_stands_still(
    tmp_path: Path, isolated: bool
) -> None:
    await play_armed(tmp_path, isolated=isolated, word_s=0.005, warn_s=1, silent_s=0, told=3)


@pytest.mark.long
@pytest.mark.timeout(1100)
@pytest.mark.parametrize("isolated", [True, False])
async def test_a_tool_in_silence_for_ten_minutes_is_left_alone(tmp_path: Path, isolated: bool) -> None:
    await play_armed(tmp_path, isolated=isolated, word_s=180 / WORDS, warn_s=120, silent_s=600, told=2)
