"""MCP servers as tools: real servers, over standard input and output and over HTTP, in turns of a gateway."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.clock import SystemClock
from holdfast.config import Config
from holdfast.session.fence import Epoch
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.served import Served, served
from holdfast.tool.servers import Servers, ServerSettings
from holdfast.turn.tools import RESULT_BYTES_MAX, Toolbox, ToolCall

PROGRAM = Path(__file__).with_name("mcp_server.py")
MAIN = "agent:main:main"
START_S = 90  # a loaded machine takes its time for an interpreter and the library


def argv(folder: Path, *more: str) -> list[str]:
    return [sys.executable, str(PROGRAM), str(folder), *more]


def pids(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "pids").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


async def until(is_so: Callable[[], bool], seconds: float = 90.0) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110  # what is waited for happens in another process
            await asyncio.sleep(0.02)


def results(model: ScriptedModel) -> list[str]:
    return [one["content"][0]["text"] for one in model.requests[-1].messages if one["role"] == "toolResult"]


async def say(gateway: Served, client: httpx.AsyncClient, text: str, lane: str = "main") -> dict[str, Any]:
    where = f"/api/sessions/{MAIN if lane == 'main' else 'hook:trial'}/messages"
    return (await client.post(where, params={"wait": 1, "timeout": 300}, json={"text": text, "lane": lane})).json()


linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes by /proc")


@linux
async def test_a_gateway_calls_a_program_s_tools_asks_for_what_may_change_something_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    """One server for the whole story: results of all kinds, a yes, a lane that only reads, the end."""
    folder = tmp_path / "trial"
    folder.mkdir()
    calls: list[tuple[str, dict[str, Any]]] = [
        ("trial_add", {"a": 19, "b": 23}),
        ("trial_environment", {}),
        ("trial_fail", {}),
        ("trial_picture", {}),
        ("trial_large", {"count": 10_000_000}),
        ("trial_leave_behind", {}),
        ("trial_order", {"what": "tea"}),
    ]
    model = ScriptedModel(Reply(calls=calls), "done", Reply(calls=[("trial_order", {"what": "gin"})]), "no gin")
    reading = ["add", "environment", "fail", "picture", "large", "leave_behind"]
    server = {"command": argv(folder), "env": ["TEA_TOKEN"], "read": reading, "start_timeout_s": START_S}
    config = Config.model_validate({"tools": {"servers": {"trial": server}}})
    env = {**os.environ, "TEA_TOKEN": "darjeeling-2026", "OPENAI_API_KEY": "sk-never-to-be-seen-by-a-server"}
    async with (
        served(tmp_path / "state", model=model, config=config, env=env) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=300) as client,
    ):
        said = asyncio.create_task(say(gateway, client, "go"))
        waiting: list[dict[str, str]] = []
        async with asyncio.timeout(100):
            while not waiting:
                waiting = (await client.get("/api/approvals")).json()["approvals"]
                await asyncio.sleep(0.02)
        [question] = waiting
        # It says of itself that it only reads. That does not count.
        assert (question["tool"], json.loads(question["shown"])) == ("trial_order", {"what": "tea"})
        assert not (folder / "orders").exists()
        await client.post(f"/api/approvals/{question['id']}", json={"answer": "approve"})
        assert (await said)["answer"] == "done"
        assert (folder / "orders").read_text() == "tea\n"

        [added, seen, failed, picture, large, left_behind, ordered] = results(model)
        assert (added, ordered) == ("42", "ordered tea")
        assert picture == "[image/png, 100 bytes, not shown]"
        assert failed.startswith("InputError: Error executing tool fail")
        assert RESULT_BYTES_MAX < len(large) < RESULT_BYTES_MAX + 100
        assert "bytes left out" in large
        environment = json.loads(seen)
        home = str(tmp_path / "state" / "servers" / "trial")
        assert (environment["HOME"], environment["cwd"]) == (home, home)
        assert "OPENAI_API_KEY" not in environment
        assert environment["TEA_TOKEN"] == "[redacted]"  # it has it; the transcript and the model do not
        described = {one.name: one.description for one in model.requests[0].tools}
        assert described["trial_add"] == "Adds two numbers.\\x1b[31m"

        assert (await say(gateway, client, "go", lane="hook"))["answer"] == "no gin"
        assert "trial_order" not in {one.name for one in model.requests[-1].tools}
        assert "trial_add" in {one.name for one in model.requests[-1].tools}
        assert results(model)[-1].startswith("denied: trial_order was not run")
        assert (folder / "orders").read_text() == "tea\n"
        [server_pid] = pids(folder)
        assert is_alive(server_pid)
        assert is_alive(int(left_behind))
    assert not is_alive(server_pid)
    assert not is_alive(int(left_behind))


async def test_a_server_that_does_not_start_costs_a_turn_its_tools_and_nothing_else(tmp_path: Path) -> None:
    model = ScriptedModel("hello")
    mute = {"command": ["sleep", "1000"], "start_timeout_s": 1}
    broken = {"command": ["sh", "-c", "echo no database today >&2; exit 3"], "start_timeout_s": START_S}
    nobody = {"command": ["no-such-program-here"], "start_timeout_s": START_S}
    config = Config.model_validate({"tools": {"servers": {"mute": mute, "broken": broken, "nobody": nobody}}})
    async with (
        served(tmp_path / "state", model=model, config=config, env=dict(os.environ)) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=300) as client,
    ):
        assert (await say(gateway, client, "hi"))["answer"] == "hello"
        servers = gateway.gateway.servers
        assert servers is not None
        await until(lambda: not any(one.state == "starting" for one in servers.views()))
        why = {one.name: one.why for one in servers.views()}
        assert why["mute"] == "not started in 1 s"
        assert "it said: no database today" in why["broken"]
        assert "it said: no-such-program-here: No such file or directory" in why["nobody"]


def toolbox_of(servers: Servers) -> Toolbox:
    return Toolbox(tool for one in servers._servers for tool in one.tools)


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("c1", name, arguments, MAIN, "turn", Epoch(1, "n"))


@linux
async def test_a_server_killed_in_a_call_or_between_calls_is_started_again_and_a_hanging_call_is_cut(
    tmp_path: Path,
) -> None:
    home = str(tmp_path / "home")
    settings = ServerSettings(
        "trial", tuple(argv(tmp_path)), cwd=home, env={"PATH": os.environ["PATH"], "HOME": home}, timeout_s=3,
        start_timeout_s=START_S,
    )  # fmt: skip
    servers = Servers([settings], SystemClock())
    try:
        await servers.start_all()
        tools = toolbox_of(servers)

        async def run(name: str, **arguments: Any) -> str:
            return (await tools.run(call(name, **arguments), seconds_max=60)).text

        assert "was stopped after 3 s" in await run("trial_hang")
        assert (tmp_path / "hanging").exists()
        assert await run("trial_add", a=1, b=2) == "3"  # it was only that call

        text = await run("trial_die")
        assert "whether the call was carried out is not known" in text
        await until(lambda: servers.views()[0].restarts == 1 and servers.views()[0].state == "up", START_S)
        assert await run("trial_add", a=2, b=2) == "4"

        os.kill(pids(tmp_path)[-1], signal.SIGKILL)
        await until(lambda: servers.views()[0].state != "up")  # nobody has to call it for that
        assert "the call was not made" in await run("trial_add", a=2, b=3)
        await until(lambda: servers.views()[0].state == "up", START_S)
        assert await run("trial_add", a=2, b=3) == "5"
        assert servers.views()[0].restarts == 2
    finally:
        await servers.close()
    assert len(pids(tmp_path)) == 3
    assert not any(map(is_alive, pids(tmp_path)))


async def test_a_server_is_called_over_http_and_found_again_after_it_has_gone(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[bytes]:
        (tmp_path / "port").unlink(missing_ok=True)
        return subprocess.Popen(argv(tmp_path, "http"))

    program = start()
    try:
        await until((tmp_path / "port").exists, START_S)
        url = f"http://127.0.0.1:{(tmp_path / 'port').read_text()}/mcp"
        stranger = ServerSettings("stranger", url=url, start_timeout_s=START_S)
        known = ServerSettings(
            "trial", url=url, headers={"Authorization": "Bearer open sesame"}, timeout_s=5, start_timeout_s=START_S
        )
        servers = Servers([stranger, known], SystemClock())
        try:
            names = [tool.spec.name for tool in await servers.start_all()]
            assert "trial_add" in names
            assert not any(name.startswith("stranger") for name in names)
            assert "error response" in servers.views()[0].why
            tools = toolbox_of(servers)
            assert (await tools.run(call("trial_add", a=20, b=22), seconds_max=60)).text == "42"
            failed = await tools.run(call("trial_fail"), seconds_max=60)
            assert (failed.is_error, failed.text.startswith("InputError: Error executing")) == (True, True)
            program.kill()
            program.wait()
            gone = await tools.run(call("trial_add", a=1, b=1), seconds_max=60)
            assert (gone.is_error, gone.text.startswith("ResourceError: server trial")) == (True, True)
            await until(lambda: servers.views()[1].state != "up")
        finally:
            await servers.close()
    finally:
        program.kill()
        program.wait()
