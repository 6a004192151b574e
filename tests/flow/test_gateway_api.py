"""The gateway's own routes, over a real socket."""

from __future__ import annotations

import asyncio
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.gateway.events_api import WATCHERS_MAX
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.served import Served, served

MESSAGES = "/api/sessions/agent:main:main/messages"


@asynccontextmanager
async def calling(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    async with (
        served(tmp_path / "state", model=model) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http,
    ):
        yield gateway, http


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_message_is_acknowledged_once_it_is_stored(tmp_path: Path) -> None:
    model = ScriptedModel("one", "two")
    model.hold()
    async with calling(tmp_path, model) as (gateway, http):
        first = await http.post(MESSAGES, json={"text": "hello"})
        assert first.status_code == 202
        assert set(first.json()) == {"id", "state", "ahead"}
        assert first.json()["ahead"] == 0
        assert first.headers["x-holdfast-input"] == first.json()["id"]
        await model.asked(1)
        second = await http.post(MESSAGES, json={"content": [{"type": "text", "text": "and then"}]})
        assert (second.json()["state"], second.json()["ahead"]) == ("queued", 1)
        model.release()
        settled = await gateway.hf.wait_input(second.json()["id"], 20)
        assert (settled.state, settled.answer) == ("answered", "two")


async def test_a_caller_may_wait_for_the_answer(tmp_path: Path) -> None:
    async with calling(tmp_path, ScriptedModel("here")) as (_, http):
        answered = await http.post(MESSAGES, params={"wait": 1}, json={"text": "hello"})
    assert answered.status_code == 200
    body = answered.json()
    assert (body["state"], body["settled"], body["answer"]) == ("answered", True, "here")
    assert body["result"]["finish"] == "stop"


async def test_an_answer_goes_where_its_route_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with calling(tmp_path, ScriptedModel("over there")) as (gateway, http):
        routed = await http.post(MESSAGES, params={"wait": 1}, json={"text": "hello", "route": "console:me"})
        with gateway.hf.events.subscribe(input_id=routed.json()["id"]) as events:
            while (await gateway.hf.deliveries())[0].state != "sent":
                await events.next(timeout_s=1)
    assert routed.json()["route"] == "console:me"
    assert "me> over there" in capsys.readouterr().out


@pytest.mark.parametrize("route", ["console", ":me", "console:", "pigeon:me", 7])
async def test_a_route_that_leads_nowhere_is_refused(tmp_path: Path, route: object) -> None:
    async with calling(tmp_path, ScriptedModel()) as (gateway, http):
        refused = await http.post(MESSAGES, json={"text": "hello", "route": route})
        assert refused.status_code == 400
        assert "route" in refused.json()["error"]["message"]
        assert await gateway.hf.inputs() == []


async def test_waiting_too_long_is_said_and_the_input_goes_on(tmp_path: Path) -> None:
    model = ScriptedModel("late")
    model.hold()
    async with calling(tmp_path, model) as (gateway, http):
        late = await http.post(MESSAGES, params={"wait": 1, "timeout": 0.05}, json={"text": "hello"})
        assert late.status_code == 409
        assert int(late.headers["retry-after"]) > 0
        error = late.json()["error"]
        assert error["code"] == "still_running"
        model.release()
        assert (await gateway.hf.wait_input(error["input_id"], 20)).answer == "late"


async def test_the_same_key_is_one_message_and_another_body_is_refused(tmp_path: Path) -> None:
    model = ScriptedModel("once")
    async with calling(tmp_path, model) as (gateway, http):
        key = {"idempotency-key": "k"}
        first = await http.post(MESSAGES, json={"text": "hello"}, headers=key)
        again = await http.post(MESSAGES, json={"text": "hello"}, headers=key)
        assert again.json()["id"] == first.json()["id"]
        assert again.headers["x-holdfast-joined"] == first.json()["id"]
        other = await http.post(MESSAGES, json={"text": "bye"}, headers=key)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
        assert other.headers["x-should-retry"] == "false"
        waited = await http.post(MESSAGES, params={"wait": 1}, json={"text": "hello"}, headers=key)
        assert waited.json()["answer"] == "once"
        assert len(await gateway.hf.inputs()) == 1


async def test_equal_messages_without_a_key_are_two_messages(tmp_path: Path) -> None:
    model = ScriptedModel("one", "two")
    model.hold()
    async with calling(tmp_path, model) as (gateway, http):
        ids = {(await http.post(MESSAGES, json={"text": "ping"})).json()["id"] for _ in range(2)}
        assert len(ids) == 2
        model.release()
        assert [(await gateway.hf.wait_input(id, 20)).state for id in ids] == ["answered", "answered"]


@pytest.mark.parametrize("key", ["../../etc/passwd", "a/b/c", "x:messages", "Ünïcödé 日本", "%2e%2e%2f", "a b?c#d"])
async def test_a_session_key_is_free_text_and_names_no_file_outside(tmp_path: Path, key: str) -> None:
    async with calling(tmp_path, ScriptedModel("ok")) as (_, http):
        quoted = "".join(f"%{byte:02x}" for byte in key.encode())
        answered = await http.post(f"/api/sessions/{quoted}/messages", params={"wait": 1}, json={"text": "hi"})
        assert answered.json()["session"] == key
        [session] = (await http.get("/api/sessions")).json()["sessions"]
        assert session["key"] == key
    [transcript] = (tmp_path / "state" / "sessions").rglob("*.jsonl")
    assert session["path"] == str(transcript)
    assert os.listdir(tmp_path) == ["state"]


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_happened_can_be_looked_at(tmp_path: Path) -> None:
    async with calling(tmp_path, ScriptedModel("a1", "a2")) as (_, http):
        for text in ("u1", "u2"):
            await http.post(MESSAGES, params={"wait": 1}, json={"text": text})
        await http.post("/api/sessions/other/messages", json={"text": "x"})
        inputs = (await http.get("/api/inputs", params={"session": "agent:main:main"})).json()["inputs"]
        assert [one["answer"] for one in inputs] == ["a2", "a1"]
        assert "payload" not in inputs[0]
        one = (await http.get(f"/api/inputs/{inputs[0]['id']}")).json()
        assert one["payload"] == {"content": "u2"}
        turns = (await http.get("/api/turns", params={"session": "agent:main:main", "limit": 1})).json()["turns"]
        assert [turn["input_id"] for turn in turns] == [inputs[0]["id"]]
        sessions = (await http.get("/api/sessions", params={"prefix": "agent:"})).json()["sessions"]
        assert [session["key"] for session in sessions] == ["agent:main:main"]
        why = (await http.get(f"/api/why/{inputs[0]['id']}")).json()
        assert why["state"] == "answered"
        assert why["lines"]


async def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    async with calling(tmp_path, ScriptedModel()) as (_, http):
        for method, path in [
            ("GET", "/api/inputs/in_0"),
            ("GET", "/api/why/in_0"),
            ("POST", "/api/inputs/in_0/cancel"),
            ("POST", "/api/turns/turn_0/cancel"),
        ]:
            missing = await http.request(method, path)
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_input"), path
        assert (await http.get("/nowhere")).status_code == 404
        assert (await http.get("/api/inputs", params={"limit": 0})).status_code == 400


async def test_a_turn_and_a_waiting_input_can_be_cancelled(tmp_path: Path) -> None:
    model = ScriptedModel("never said", "never asked")
    model.hold()
    async with calling(tmp_path, model) as (gateway, http):
        running = (await http.post(MESSAGES, json={"text": "one"})).json()["id"]
        await model.asked(1)
        waiting = (await http.post(MESSAGES, json={"text": "two"})).json()["id"]
        ended = await http.post(f"/api/inputs/{waiting}/cancel")
        assert (ended.status_code, ended.json()["result"]) == (200, "cancelled")
        [turn] = (await http.get("/api/turns")).json()["turns"]
        asked = await http.post(f"/api/turns/{turn['id']}/cancel")
        assert (asked.status_code, asked.json()["result"]) == (202, "requested")
        view = await gateway.hf.wait_input(running, 20)
        assert view.state == "cancelled"
        assert "http (127.0.0.1)" in (view.detail or "")
        again = await http.post(f"/api/inputs/{running}/cancel")
        assert (again.status_code, again.json()["result"]) == (200, "already cancelled")


async def test_events_of_one_session_are_streamed(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    async with (
        asyncio.timeout(60),
        calling(tmp_path, ScriptedModel("said there", "said here")) as (_, http),
        http.stream("GET", "/api/events", params={"session": "here"}) as stream,
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == "retry: 2000"  # so it is watching
        await http.post("/api/sessions/there/messages", params={"wait": 1}, json={"text": "hi"})
        posted = (await http.post("/api/sessions/here/messages", json={"text": "hi"})).json()
        async for line in lines:
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: ")))
                if events[-1]["kind"] == "turn.settled":
                    break
    assert {event["input_id"] for event in events} == {posted["id"]}
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "input.accepted"
    assert {"turn.started", "turn.model", "turn.delta", "turn.settled"} <= set(kinds)


async def test_watchers_are_limited(tmp_path: Path) -> None:
    async with calling(tmp_path, ScriptedModel()) as (gateway, _), AsyncExitStack() as watching:
        limits = httpx.Limits(max_connections=None)
        http = await watching.enter_async_context(
            httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, limits=limits, timeout=60)
        )
        async with asyncio.timeout(30):
            streams = [
                await watching.enter_async_context(http.stream("GET", "/api/events")) for _ in range(WATCHERS_MAX + 1)
            ]
        assert [stream.status_code for stream in streams] == [200] * WATCHERS_MAX + [429]
        await streams[0].aclose()
        async with asyncio.timeout(30):
            while (one := await http.send(http.build_request("GET", "/api/events"), stream=True)).status_code == 429:
                await one.aclose()
        await one.aclose()


# ── health and documentation ─────────────────────────────────────────────────────────────────────────────────────────


async def test_health_needs_no_token_and_readiness_ends_with_the_drain(tmp_path: Path) -> None:
    async with (
        served(tmp_path / "state", model=ScriptedModel()) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=60) as http,
    ):
        assert (await http.get("/healthz")).json() == {"status": "ok", "store_id": gateway.hf.store.store_id}
        assert (await http.get("/readyz")).status_code == 200
        await gateway.gateway.drain(0.0)
        gone = await http.get("/readyz")
        assert (gone.status_code, gone.json()["error"]["code"]) == (503, "draining")
        assert int(gone.headers["retry-after"]) > 0
        assert (await http.get("/healthz")).status_code == 200


async def test_the_documentation_names_every_route_and_loads_nothing(tmp_path: Path) -> None:
    async with calling(tmp_path, ScriptedModel()) as (_, http):
        shown = await http.get("/docs")
        page = shown.text
        described = (await http.get("/openapi.json")).json()
    for path in described["paths"]:
        assert path in page
    assert {"/v1/chat/completions", "/v1/models", "/api/events", "/api/why/{id}"} <= set(described["paths"])
    assert "<script" not in page
    assert "src=" not in page
    assert "`" not in page  # names are marked up, not quoted as in the code
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in shown.headers["content-security-policy"]


async def test_a_turn_that_fails_inside_is_told_with_its_class(tmp_path: Path) -> None:
    async with calling(tmp_path, ScriptedModel(Reply(error=RuntimeError("a fault of ours")))) as (_, http):
        failed = await http.post(MESSAGES, params={"wait": 1}, json={"text": "hello"})
    assert failed.status_code == 200
    assert (failed.json()["state"], failed.json()["error"]) == ("failed", "RuntimeError")
