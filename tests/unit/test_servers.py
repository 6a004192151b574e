"""Servers of tools without any: what is taken of their offers, and what becomes of them and their calls."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.config.load import load_config
from holdfast.errors import ConfigError, InputError, ResourceError
from holdfast.testing.clock import VirtualClock
from holdfast.tool.offered import DESCRIPTION_CHARS_MAX, TOOLS_MAX, Offered, full_name, take
from holdfast.tool.process import GUARD
from holdfast.tool.servers import Servers, ServerSettings

OBJECT: dict[str, Any] = {"type": "object", "properties": {}}
MAIN = "agent:main:main"


def offer(name: str, description: str = "Does it.", schema: Mapping[str, Any] = OBJECT) -> Offered:
    return Offered(name, description, schema)


# ── what is taken of an offer ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["add", "get.weather/now", "tür", "a" * 200, "", "x y", "add\u202e"])
def test_a_tool_has_a_name_that_every_provider_takes(name: str) -> None:
    full = full_name("trial", name)
    assert re.fullmatch(r"trial_[A-Za-z0-9_-]{0,58}", full)
    assert (full == "trial_add") == (name == "add")


def test_names_that_had_to_be_changed_do_not_become_one() -> None:
    names = ["a.b", "a/b", "a_b", "a b", "x" * 100 + "1", "x" * 100 + "2"]
    assert len({full_name("trial", one) for one in names}) == len(names)


def test_of_two_tools_with_one_name_the_second_is_refused_by_name() -> None:
    found = take("session", [offer("status"), offer("other"), offer("other")], {"session_status"})
    assert list(found.tools) == ["session_other"]
    assert found.refused == {
        "status": "the name session_status is taken",
        "other": "the name session_other is taken",
    }


def test_texts_of_a_server_are_bounded_and_hold_nothing_that_people_do_not_see() -> None:
    hidden = "Adds.\x1b[2J\u202egnp\U000e0041\U000e0042\u200b" + "y" * 5000
    schema = {"type": "object", "properties": {"a": {"type": "string", "description": hidden}}}
    [taken] = take("t", [offer("add", hidden, schema)]).tools.values()
    for text in (taken.description, taken.parameters["properties"]["a"]["description"]):
        assert len(text) <= DESCRIPTION_CHARS_MAX
        assert text.startswith("Adds.\\x1b[2Jgnpyyy")
        assert text.isascii() or text.endswith("…")


def test_arguments_that_are_described_at_length_or_too_deeply_or_as_no_object_are_refused() -> None:
    deep: dict[str, Any] = {"type": "object"}
    for _ in range(40):
        deep = {"type": "object", "properties": {"a": deep}}
    many = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(2000)}}
    found = take("t", [offer("deep", schema=deep), offer("many", schema=many), offer("list", schema={"type": "array"})])
    assert found.tools == {}
    assert {name: why.split()[-3:] for name, why in found.refused.items()} == {
        "deep": ["24", "levels", "deep"],
        "many": ["over", "16384", "characters"],
        "list": ["as", "an", "object"],
    }


def test_a_server_with_too_many_tools_has_the_first_of_them() -> None:
    found = take("t", [offer(f"tool{n}") for n in range(TOOLS_MAX + 3)])
    assert (len(found.tools), len(found.refused)) == (TOOLS_MAX, 3)


# ── the configuration ────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_faults_of_servers_are_told_at_once_with_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(
        '[tools.servers.both]\ncommand = ["x"]\nurl = "https://x.example/mcp"\n'
        "[tools.servers.neither]\n"
        '[tools.servers.ftp]\nurl = "ftp://x.example"\ntoken_env = "not a name"\n'
        '[tools.servers.secret]\nurl = "https://me:pass@x.example"\n'
        '[tools.servers.wide]\ncommand = ["x"]\neffect = "love"\ntimeout_s = 0\ntoken_env = "TOKEN"\n'
        '[tools.servers.program]\ncommand = ["x"]\ntoken_env = "TOKEN"\n'
    )
    with pytest.raises(ConfigError) as refused:
        load_config(file, {})
    told = {fault.partition(":")[0]: fault for fault in refused.value.faults}
    assert set(told) == {
        "tools.servers.both", "tools.servers.neither", "tools.servers.ftp.url", "tools.servers.ftp.token_env",
        "tools.servers.secret.url", "tools.servers.wide.effect", "tools.servers.wide.timeout_s",
        "tools.servers.program",
    }  # fmt: skip
    assert "either `command` or `url`" in told["tools.servers.both"]
    assert "pass" not in told["tools.servers.secret.url"].partition("password")[0]


def test_a_name_with_an_underscore_is_refused_since_it_could_speak_for_another_server(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text('[tools.servers.a_b]\ncommand = ["x"]\n')
    with pytest.raises(ConfigError, match="'a_b'"):
        load_config(file, {})


def test_secrets_come_from_the_environment_and_a_program_gets_those_that_are_named(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(
        '[tools.servers.remote]\nurl = "https://x.example/mcp"\ntoken_env = "T"\nheaders = { X-Team = "TEAM" }\n'
        '[tools.servers.local]\ncommand = ["x"]\nenv = ["T"]\n'
    )
    servers = load_config(file, {}).tools.servers
    env = {"T": "tea", "TEAM": "blue", "OPENAI_API_KEY": "no", "PATH": "/bin"}
    remote = servers["remote"].settings("remote", "/state", env)
    assert dict(remote.headers) == {"Authorization": "Bearer tea", "X-Team": "blue"}
    assert "tea" not in repr(remote)
    local = servers["local"].settings("local", "/state", env)
    assert dict(local.env) == {"T": "tea", "PATH": "/bin", "HOME": "/state/servers/local"}
    assert servers["remote"].settings("remote", "/state", {}).missing == ("TEAM", "T")


# ── lives ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Line:
    """A connection in a test's hand."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.ended = self.changed = False
        self.offers = [offer("add")]
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.listed = 0

    def has_ended(self) -> bool:
        return self.ended

    def has_changed(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    async def list_tools(self) -> list[Offered]:
        self.listed += 1
        return self.offers

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        return await self.answer


class Lines:
    """Connections as they are made. `refuse`: why none is."""

    def __init__(self) -> None:
        self.made: list[Line] = []
        self.left = 0
        self.refuse: BaseException | None = None
        self.stuck = False
        self.owners: set[asyncio.Task[Any] | None] = set()

    @asynccontextmanager
    async def connect(self, own: ServerSettings, wake: Callable[[], None]) -> AsyncIterator[Line]:
        entered = asyncio.current_task()
        if self.refuse is not None:
            raise self.refuse
        if self.stuck:
            await asyncio.Event().wait()
        line = Line(wake)
        self.made.append(line)
        try:
            yield line
        finally:
            self.left += 1
            self.owners.add(asyncio.current_task() if asyncio.current_task() is entered else None)


def one_server(lines: Lines, clock: VirtualClock, **settings: Any) -> Servers:
    return Servers([ServerSettings("t", ("x",), **settings)], clock, connect=lines.connect)


async def test_a_server_is_started_by_the_first_turn_whose_agent_may_use_it() -> None:
    lines = Lines()
    servers = one_server(lines, VirtualClock(), agents=("helper",))
    assert await servers.tools_for(MAIN, "main") == []
    assert (servers.views()[0].state, lines.made) == ("idle", [])
    assert [one.spec.name for one in await servers.tools_for("agent:helper:main", "main")] == ["t_add"]
    await servers.tools_for("agent:helper:main", "main")
    assert len(lines.made) == 1
    await servers.close()
    assert (lines.left, lines.owners) == (1, {*lines.owners} - {None})
    assert await servers.tools_for(MAIN, "main") == []


async def test_one_that_dies_is_started_again_ever_later_and_its_tools_say_so_meanwhile() -> None:
    lines, clock = Lines(), VirtualClock()
    servers = one_server(lines, clock)
    [tool] = await servers.tools_for(MAIN, "main")
    pauses: list[float] = []
    lines.refuse = OSError("no such program")
    lines.made[0].ended = True
    lines.made[0].wake()
    for _ in range(8):
        await clock.advance(0)
        view = servers.views()[0]
        assert (view.state, view.tools) == ("down", ("t_add",))
        assert await servers.tools_for(MAIN, "main") == [tool]
        with pytest.raises(ResourceError, match=r"server t is down \(.*; the call was not made"):
            await tool.run(_call())
        assert view.retry_s is not None
        pauses.append(view.retry_s)
        await clock.advance(view.retry_s)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert servers.views()[0].why == "no such program"
    lines.refuse = None
    await clock.advance(60)
    assert servers.views()[0].state == "up"
    await clock.advance(61)  # long enough to be trusted again
    lines.made[1].ended = True
    lines.made[1].wake()
    await clock.advance(0)
    assert servers.views()[0].retry_s == 1
    await servers.close()
    assert None not in lines.owners


async def test_a_call_under_which_the_server_goes_says_that_nobody_knows() -> None:
    lines, clock = Lines(), VirtualClock()
    servers = one_server(lines, clock)
    [tool] = await servers.tools_for(MAIN, "main")
    calling = asyncio.ensure_future(tool.run(_call()))
    await clock.advance(0)
    lines.made[0].ended = True
    lines.made[0].wake()
    with pytest.raises(ResourceError, match="whether the call was carried out is not known"):
        await calling
    await servers.close()


async def test_a_server_that_lets_a_call_down_is_looked_at_before_it_is_given_up() -> None:
    lines, clock = Lines(), VirtualClock()
    servers = one_server(lines, clock)
    [tool] = await servers.tools_for(MAIN, "main")
    line = lines.made[0]
    for wrong in (InputError("no tea"), OSError("broken pipe")):
        line.answer = asyncio.get_running_loop().create_future()
        line.answer.set_exception(wrong)
        with pytest.raises((InputError, ResourceError), match=str(wrong)):
            await tool.run(_call())
        await clock.advance(0)
    assert (line.listed, servers.views()[0].state) == (2, "up")  # an answer that is an error is an answer
    line.answer = asyncio.get_running_loop().create_future()
    calling = asyncio.ensure_future(tool.run(_call()))
    await clock.advance(0)
    calling.cancel()
    await asyncio.wait({calling})
    await clock.advance(0)
    assert (line.listed, servers.views()[0].state) == (3, "up")
    await servers.close()


async def test_tools_that_a_server_says_are_others_now_are_others_in_the_next_turn() -> None:
    lines, clock = Lines(), VirtualClock()
    servers = one_server(lines, clock)
    await servers.tools_for(MAIN, "main")
    lines.made[0].offers = [offer("subtract")]
    lines.made[0].changed = True
    lines.made[0].wake()
    await clock.advance(0)
    assert [one.spec.name for one in await servers.tools_for(MAIN, "main")] == ["t_subtract"]
    await servers.close()


async def test_one_that_does_not_start_is_waited_for_once_and_not_longer_than_said() -> None:
    lines = Lines()
    lines.stuck = True
    servers = one_server(lines, VirtualClock(), start_timeout_s=0.05)
    assert await servers.tools_for(MAIN, "main") == []
    async with asyncio.timeout(60):
        while servers.views()[0].state != "down":  # noqa: ASYNC110  # its own alarm is no event of ours
            await asyncio.sleep(0.01)
    assert servers.views()[0].why == "not started in 0.05 s"
    assert await servers.tools_for(MAIN, "main") == []
    await servers.close()


async def test_a_variable_that_is_not_set_is_named() -> None:
    servers = one_server(Lines(), VirtualClock(), missing=("TOKEN",))
    assert await servers.tools_for(MAIN, "main") == []
    assert servers.views()[0].why == "not set in the environment: TOKEN"
    await servers.close()


async def test_what_a_server_says_of_its_tools_does_not_count_and_what_the_operator_says_does() -> None:
    lines, clock = Lines(), VirtualClock()
    servers = one_server(lines, clock, read=("get_*",))
    await servers.tools_for(MAIN, "main")
    lines.made[0].offers = [offer("get_tea"), offer("pour_tea")]
    lines.made[0].changed = True
    lines.made[0].wake()
    await clock.advance(0)
    found = {one.spec.name: (one.effect, one.restart_safe) for one in await servers.tools_for(MAIN, "main")}
    assert found == {"t_get_tea": ("read", True), "t_pour_tea": ("change", False)}
    await servers.close()


def _call() -> Any:
    from holdfast.session.fence import Epoch
    from holdfast.turn.tools import ToolCall

    return ToolCall("c1", "t_add", {}, MAIN, "turn", Epoch(1, "n"))


# ── the guard of a server ────────────────────────────────────────────────────────────────────────────────────────────

STUBBORN = "trap '' TERM; setsid sleep {mark} & echo ready; while read line; do echo \"$line\"; done; sleep {mark}"


def _alive(mark: str) -> bool:
    return any(
        mark.encode() in _read(f"/proc/{name}/cmdline") and _state(name) not in (b"Z", b"")
        for name in os.listdir("/proc")
        if name.isdigit()
    )


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _state(pid: str) -> bytes:
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2][1:2]


linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes by /proc")


@linux
@pytest.mark.parametrize("how", ["its input is closed", "SIGTERM"])
def test_the_guard_of_a_server_leaves_nothing_also_of_one_that_does_not_want_to_end(how: str) -> None:
    mark = f"71{os.getpid()}{len(how)}"
    argv = ["sh", "-c", STUBBORN.format(mark=mark)]
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), json.dumps(argv), "0", "serve"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert guard.stdin is not None
    assert guard.stdout is not None
    assert guard.stdout.readline() == "ready\n"
    guard.stdin.write("hello\n")
    assert guard.stdout.readline() == "hello\n"  # what is said reaches the program, not its guard
    if how == "SIGTERM":
        guard.send_signal(signal.SIGTERM)
    else:
        guard.stdin.close()
    guard.wait(30)
    assert not _alive(mark)
    guard.stdout.close()


@linux
def test_a_server_ends_when_its_gateway_is_killed() -> None:
    mark = f"72{os.getpid()}"
    guarded = [sys.executable, "-I", "-S", str(GUARD), json.dumps(["sh", "-c", STUBBORN.format(mark=mark)]), "0",
               "serve"]  # fmt: skip
    parent = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen({guarded!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode(), child.pid, flush=True)\ntime.sleep(600)\n"
    )
    gateway = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert gateway.stdout is not None
    assert gateway.stdout.readline() == "ready\n"
    guard = gateway.stdout.readline().strip()
    gateway.kill()
    gateway.wait()
    gateway.stdout.close()
    for _ in range(600):
        if not _alive(mark) and _state(guard) in (b"Z", b""):
            return
        signal.sigtimedwait([], 0.05)
    raise AssertionError("something of the server is left")
