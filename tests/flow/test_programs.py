"""Programs that agents run, messages they send, heartbeats they answer: what is left of each, and who knows of it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from holdfast.clock import SystemClock
from holdfast.inbound import heartbeat
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.world import World
from holdfast.tool.gate import GateSettings
from holdfast.tool.policy import Policy, Rules
from holdfast.tool.process import Kept, Order, Running, clean_env

MAIN = "agent:main:main"
FREE = GateSettings(Policy(Rules(allow=("*",)), lanes={"heartbeat": Rules(allow=("*",))}))


def calling(name: str, arguments: dict[str, Any], *more: str) -> ScriptedModel:
    return ScriptedModel(Reply(calls=[(name, arguments)]), *more)


def order(*argv: str, timeout_s: float = 20.0, env: dict[str, str] | None = None, processes_max: int = 256) -> Order:
    return Order(argv, "/", env or clean_env(os.environ, home="/"), timeout_s, 4096, processes_max)


def alive(mark: str) -> list[str]:
    """Command lines that hold a mark, of programs that have not ended."""
    found: list[str] = []
    for name in os.listdir("/proc"):
        try:
            line = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if name.isdigit() and mark.encode() in line and b"sleep" in line and b"python" not in line.split(b"\0")[0]:
            found.append(line.decode())
    return found


linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes by /proc")


@linux
@pytest.mark.parametrize("how", ["timeout", "cancelled", "left behind"])
async def test_nothing_of_a_program_is_left_also_of_what_hides_in_a_session_of_its_own(how: str) -> None:
    mark = f"61{os.getpid()}{len(how)}"
    wait = "" if how == "left behind" else "; sleep 60"
    shell = f"sleep {mark} & setsid sleep {mark} & (setsid sh -c 'sleep {mark} & exec sleep {mark}' &){wait}"
    running = await Running.start(order("sh", "-c", shell, timeout_s=1.0 if how == "timeout" else 30.0), SystemClock())
    task = asyncio.ensure_future(running.run())
    if how == "cancelled":
        while len(alive(mark)) < 3:  # noqa: ASYNC110  # no event says that a program has started
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        ran = await task
        assert ran.how == ("timeout" if how == "timeout" else "ended")
    assert alive(mark) == []


@linux
async def test_too_many_processes_end_all_of_them() -> None:
    mark = f"62{os.getpid()}"
    shell = f"i=0; while [ $i -lt 60 ]; do sleep {mark} & i=$((i+1)); done; wait"
    ran = await (await Running.start(order("sh", "-c", shell, processes_max=20), SystemClock())).run()
    assert "more than 20 processes" in ran.output
    assert alive(mark) == []


async def test_a_program_gets_no_secret_and_ends_as_it_ended() -> None:
    env = clean_env({"PATH": os.environ["PATH"], "OPENAI_API_KEY": "secret", "LANG": "C"}, home="/nowhere")
    assert set(env) == {"HOME", "PATH", "LANG"}
    assert (await (await Running.start(order("env", env=env), SystemClock())).run()).output.count("secret") == 0
    for shell, code in (("exit 3", 3), ("kill -9 $$", -9), ("kill -15 $$", -15)):
        assert (await (await Running.start(order("sh", "-c", shell), SystemClock())).run()).code == code
    ran = await (await Running.start(order("no-such-program"), SystemClock())).run()
    assert (ran.code, "no-such-program" in ran.output) == (127, True)


def test_of_a_long_output_beginning_and_end_are_kept() -> None:
    kept = Kept(1000)
    for at in range(10_000):
        kept.add(f"{at:05d}\n".encode())
    assert kept.text.startswith("00000\n00001\n")
    assert kept.text.endswith("09999\n")
    assert "59000 bytes left out" in kept.text
    assert len(kept.text) < 1100


async def test_a_program_in_the_background_is_announced_once_when_it_ends(tmp_path: Path) -> None:
    go = tmp_path / "workspace" / "go"
    shell = "while [ ! -e go ]; do sleep 0.02; done; echo finished; exit 4"
    model = calling("exec", {"argv": ["sh", "-c", shell], "background": True}, "started", "noted")
    async with World(tmp_path, model=model, gate=FREE) as world:
        first = await world.inbound(MAIN, "begin")
        assert (await world.settled(first)).answer == "started"
        [program] = await world.hf.store.background()
        assert program.state == "running"
        go.write_text("")

        async def look() -> bool | None:
            return (await world.hf.store.background())[0].state == "announced" or None

        await world._until(look, "the announcement", 30)
        await world.idle(passing_s=30)
        ends = [text for role, text in await world.said(MAIN) if role == "user" and "Background program" in text]
        assert len(ends) == 1
        assert "exit code 4" in ends[0]
        assert "finished" in ends[0]
        await world.saw("noted", times=1)
        await world.check_promises()


async def test_a_program_whose_gateway_goes_is_told_of_as_lost_once(tmp_path: Path) -> None:
    mark = f"63{os.getpid()}"
    model = calling("exec", {"argv": ["sleep", mark], "background": True}, "started", "noted")
    async with World(tmp_path, model=model, gate=FREE) as world:
        await world.settled(await world.inbound(MAIN, "begin"))
        await world.restart()
        await world.idle(passing_s=30)
        [program] = await world.hf.store.background()
        assert (program.state, program.outcome) == ("announced", "lost")
        ends = [text for role, text in await world.said(MAIN) if role == "user" and "is gone" in text]
        assert len(ends) == 1
        assert alive(mark) == []


async def test_stop_ends_programs_in_the_background_and_tells_nobody_anew(tmp_path: Path) -> None:
    mark = f"64{os.getpid()}"
    model = calling("exec", {"argv": ["sleep", mark], "background": True}, "started")
    async with World(tmp_path, model=model, gate=FREE, commands=True) as world:
        await world.settled(await world.inbound(MAIN, "begin"))
        await world.inbound(MAIN, "/stop")
        await world.saw("Stopping 1 program in the background.")
        await world.idle(passing_s=30)
        assert [one.state for one in await world.hf.store.background()] == ["stopped"]
        assert alive(mark) == []


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_message_reaches_another_conversation_which_knows_of_it_once(tmp_path: Path) -> None:
    other = "agent:main:test:direct:bob"
    model = ScriptedModel(
        "hi bob", Reply(calls=[("message", {"text": "lunch?", "to": "test:bob"})] * 2), "asked him", "yes"
    )
    async with World(tmp_path, model=model, gate=FREE) as world:
        await world.settled(await world.inbound(other, "hello", to="bob"))
        await world.settled(await world.inbound(MAIN, "ask bob", to="alice"))
        await world.idle(passing_s=30)
        assert [one.target for one in await world.saw("lunch?", times=2)] == ["bob", "bob"]  # two calls, two messages
        assert [text for _, text in await world.said(other)] == ["hello", "hi bob", "lunch?", "lunch?"]
        await world.settled(await world.inbound(other, "sure", to="bob"))
        shown = [one["role"] for one in model.requests[-1].messages]
        assert shown.count("assistant") >= 2  # the model that answers him knows what he was asked
        await world.check_promises()


async def test_a_message_to_ones_own_conversation_goes_out_before_the_answer_and_needs_no_yes(tmp_path: Path) -> None:
    model = calling("message", {"text": "one moment"}, "here it is")
    async with World(tmp_path, model=model, gate=GateSettings()) as world:
        await world.settled(await world.inbound(MAIN, "look it up"))
        await world.idle(passing_s=10)
        assert [one.text for one in world.channel.received] == ["one moment", "here it is"]
        assert await world.hf.approvals() == []
        await world.check_promises()


async def test_two_sessions_that_send_at_once_both_get_their_answers(tmp_path: Path) -> None:
    """NB-2549: what one turn has sent says nothing of another's answer."""
    async with World(tmp_path, gate=GateSettings()) as world:
        world.model.script("a")
        first = await world.inbound("agent:main:test:direct:a", "A", to="a")
        await world.settled(first)
        world.model.script(Reply(calls=[("message", {"text": "from b"})]), "b")
        await world.settled(await world.inbound("agent:main:test:direct:b", "B", to="b"))
        await world.idle(passing_s=10)
        assert sorted((one.target, one.text) for one in world.channel.received) == [
            ("a", "a"),
            ("b", "b"),
            ("b", "from b"),
        ]


# ── heartbeats ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "answer", "told"),
    [
        ({"notify": False}, "a long story", ("ack", "")),
        ({"notify": True, "text": "the disk is full"}, "HEARTBEAT_OK", ("send", "the disk is full")),
        ({"notify": True}, "look at the disk", ("send", "look at the disk")),
    ],
)
async def test_a_heartbeat_says_in_so_many_words_whether_there_are_news(
    tmp_path: Path, said: dict[str, Any], answer: str, told: tuple[str, str]
) -> None:
    model = calling("heartbeat_respond", said, answer)
    async with World(tmp_path, model=model, gate=GateSettings()) as world:
        view = await world.settled(await world.inbound("agent:main:main:heartbeat", "look", lane="heartbeat", to=None))
        reply = heartbeat.plan_reply(heartbeat.answer_of(view.answer, view.result), 0)
        assert (reply.kind, reply.text) == told
        assert "heartbeat_respond" in [tool.name for tool in model.requests[0].tools]


async def test_a_session_tells_of_itself(tmp_path: Path) -> None:
    model = calling("session_status", {}, "so it is")
    async with World(tmp_path, model=model, gate=GateSettings()) as world:
        await world.settled(await world.inbound(MAIN, "how are you?"))
        [told] = [text for role, text in await world.said(MAIN) if role == "toolResult"]
        facts = json.loads(told)
        assert (facts["session"], facts["model"], facts["background"]) == (MAIN, "scripted/model", [])
        assert "heartbeat_respond" not in [tool.name for tool in model.requests[0].tools]
