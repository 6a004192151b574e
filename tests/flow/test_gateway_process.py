"""`run_gateway` as a process of its own: its port, its files, its signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

MAIN = "import sys; from holdfast.cli.main import main; sys.exit(main())"
START_S = 60.0  # a loaded machine starts a gateway in ten seconds, a quiet one in one


@dataclass(frozen=True, slots=True)
class Started:
    """A gateway process that has said it is ready."""

    process: asyncio.subprocess.Process
    said: str
    state: Path

    @property
    def told(self) -> dict[str, Any]:
        return json.loads((self.state / "gateway.json").read_text())

    def http(self) -> httpx.AsyncClient:
        token = (self.state / "token").read_text().strip()
        return httpx.AsyncClient(
            base_url=self.told["address"], headers={"authorization": f"Bearer {token}"}, timeout=START_S
        )

    async def ended(self) -> tuple[int, str]:
        """Exit code and what was written to standard error."""
        async with asyncio.timeout(START_S):
            _, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, err.decode()


async def launch(
    state: Path | str, *options: str, env: Mapping[str, str] | None = None, program: Path | None = None
) -> asyncio.subprocess.Process:
    """`holdfast up`, or a `program` that is given the state and the options."""
    start = ("-c", MAIN, "--state", str(state), "up") if program is None else (str(program), str(state))
    return await asyncio.create_subprocess_exec(
        sys.executable, *start, *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **(env or {})}, umask=0,
    )  # fmt: skip


@asynccontextmanager
async def started(
    state: Path, *options: str, env: Mapping[str, str] | None = None, program: Path | None = None
) -> AsyncIterator[Started]:
    process = await launch(state, *options, env=env, program=program)
    try:
        assert process.stdout is not None
        said = ""
        async with asyncio.timeout(START_S):
            while "is ready at" not in said:
                line = await process.stdout.readline()
                assert line, (await process.communicate())[1].decode()
                said += line.decode()
        yield Started(process, said, state)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ask(http: httpx.AsyncClient, text: str, **params: Any) -> dict[str, Any]:
    return (await http.post("/api/sessions/s/messages", params=params, json={"text": text})).json()


async def running(http: httpx.AsyncClient, text: str) -> str:
    """The id of an input whose turn has begun to stream."""
    async with http.stream("GET", "/api/events") as events:
        lines = events.aiter_lines()
        await anext(lines)
        id = (await ask(http, text))["id"]
        async with asyncio.timeout(START_S):
            await anext(line async for line in lines if line == "event: turn.delta")
    return id


async def test_a_gateway_is_ready_soon_and_tells_where_it_is(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with started(state, "--port", "0") as gateway:
        told = gateway.told
        assert told["pid"] == gateway.process.pid
        assert set(told) == {"address", "host", "port", "pid", "store_id", "started_at"}
        token = (state / "token").read_text().strip()
        assert token in gateway.said
        assert told["address"] in gateway.said
        for path in [state / "token", state / "gateway.json"]:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        async with gateway.http() as http:
            assert (await ask(http, "hello", wait=1))["answer"] == "echo #1: hello"
        gateway.process.terminate()
        code, err = await gateway.ended()
        assert code == 0
        assert token not in err
    assert not (state / "gateway.json").exists()
    async with started(state, "--port", "0") as again:
        assert token not in again.said


async def test_a_second_gateway_on_the_port_ends_with_69_and_names_the_holder(tmp_path: Path) -> None:
    async with started(tmp_path / "one", "--port", "0") as gateway:
        port = str(gateway.told["port"])
        for state in (tmp_path / "one", tmp_path / "two"):
            process = await launch(state, "--port", port)
            async with asyncio.timeout(START_S):
                _, err = await process.communicate()
            assert process.returncode == 69
            assert f"port {port}" in err.decode()
            assert f"pid {gateway.process.pid}" in err.decode()
        async with gateway.http() as http:
            assert (await http.get("/readyz")).status_code == 200


async def test_a_port_that_another_program_holds_is_named_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await launch(tmp_path / "state", "--port", str(taken.getsockname()[1]))
        async with asyncio.timeout(START_S):
            _, err = await process.communicate()
    assert process.returncode == 69
    assert f"pid {os.getpid()}" in err.decode() or "another process" in err.decode()


async def test_sigterm_lets_running_turns_end_and_refuses_new_input(tmp_path: Path) -> None:
    async with started(tmp_path / "state", "--port", "0") as gateway, gateway.http() as http:
        id = await running(http, "/slow 6 nearly done")
        assert (await http.get("/readyz")).status_code == 200
        gateway.process.terminate()
        async with asyncio.timeout(START_S):
            while (await http.get("/readyz")).status_code == 200:
                pass
        refused = await http.post("/api/sessions/s/messages", json={"text": "too late"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert int(refused.headers["retry-after"]) > 0
        code, _ = await gateway.ended()
        assert code == 0
    async with started(tmp_path / "state", "--port", "0") as gateway, gateway.http() as http:
        view = (await http.get(f"/api/inputs/{id}")).json()
        assert (view["state"], view["attempts"]) == ("answered", 1)
        assert len((await http.get("/api/inputs")).json()["inputs"]) == 1


async def test_a_turn_past_the_drain_time_is_answered_by_the_next_gateway(tmp_path: Path) -> None:
    env = {"HOLDFAST_GATEWAY_DRAIN_S": "0"}
    async with started(tmp_path / "state", "--port", "0", env=env) as gateway, gateway.http() as http:
        id = await running(http, "/slow 4 not done")
        gateway.process.terminate()
        code, _ = await gateway.ended()
        assert code == 0
    async with started(tmp_path / "state", "--port", "0") as gateway, gateway.http() as http:
        view = await ask_until_settled(http, id)
        assert view["state"] == "answered"
        assert view["attempts"] == 2


async def ask_until_settled(http: httpx.AsyncClient, id: str) -> dict[str, Any]:
    async with asyncio.timeout(START_S), http.stream("GET", "/api/events", params={"input": id}) as events:
        lines = events.aiter_lines()
        await anext(lines)
        view = (await http.get(f"/api/inputs/{id}")).json()
        if not view["settled"]:
            await anext(line async for line in lines if line == "event: turn.settled")
            view = (await http.get(f"/api/inputs/{id}")).json()
    return view


async def test_sighup_and_the_command_have_the_configuration_read_again(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "holdfast.toml"
    file.write_text("[gateway]\nwatch_config = false\n[lanes]\ndepth_max = 5\n")
    async with started(state, "--port", "0", "--config", str(file)) as gateway, gateway.http() as http:
        file.write_text("[gateway]\nwatch_config = false\nport = 7000\n[lanes]\ndepth_max = 6\n")
        gateway.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(START_S):
            while (told := (await http.get("/api/config")).json())["last"] is None:  # noqa: ASYNC110  # of another process
                await asyncio.sleep(0.05)
        assert (told["last"]["applied"], told["waiting"]) == (["lanes.depth_max"], ["gateway.port"])
        file.write_text("[lanes]\ndepth_max = 0\n")
        asked = await asyncio.create_subprocess_exec(
            sys.executable, "-c", MAIN, "--state", str(state), "--config", str(file), "config", "reload",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, _ = await asked.communicate()
        assert asked.returncode == 1
        assert b"fault: lanes.depth_max" in said
        assert b"nothing was changed" in said
        gateway.process.terminate()
        code, err = await gateway.ended()
        assert code == 0
        assert "applied: lanes.depth_max; needs a restart: gateway.port" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_waiting(tmp_path: Path, number: signal.Signals) -> None:
    async with started(tmp_path / "state", "--port", "0") as gateway, gateway.http() as http:
        await running(http, "/slow 600 never done")
        gateway.process.send_signal(number)
        async with asyncio.timeout(START_S):
            while (await http.get("/readyz")).status_code == 200:
                pass
        gateway.process.send_signal(number)
        code, _ = await gateway.ended()  # the turn would have taken ten minutes
        assert code == 0


async def test_a_killed_gateway_leaves_an_address_that_nobody_believes(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with started(state, "--port", "0") as gateway:
        port = str(gateway.told["port"])
        gateway.process.kill()
        await gateway.ended()
    assert (state / "gateway.json").exists()
    async with started(state, "--port", port) as gateway, gateway.http() as http:
        assert (await http.get("/readyz")).status_code == 200


async def test_a_token_file_that_is_none_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("mine")
    for name, plant in {
        "link": lambda path: path.symlink_to(canary),
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
        "empty": lambda path: path.touch(),
    }.items():
        state = tmp_path / name
        state.mkdir()
        plant(state / "token")
        process = await launch(state, "--port", "0")
        async with asyncio.timeout(START_S):
            _, err = await process.communicate()
        assert process.returncode == 1, name
        assert "token" in err.decode()
    assert canary.read_text() == "mine"
