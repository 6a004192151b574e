"""What must not get in: each refused with a status of its own, nothing stored, the gateway alive."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import holdfast
from holdfast.gateway.body import BODY_BYTES_MAX
from holdfast.gateway.replies import refusal_of
from holdfast.inbound.event import Accepted, InboundEvent
from holdfast.store.embedded.faults import Point
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served

JSON = {"content-type": "application/json"}
CHAT, MESSAGES = "/v1/chat/completions", "/api/sessions/s/messages"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "state", model=ScriptedModel(otherwise=lambda _: "ok")) as gateway:
        yield gateway
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http:
            assert (await http.post(MESSAGES, params={"wait": 1}, json={"text": "still there?"})).json()[
                "answer"
            ] == "ok"
        assert [view.payload for view in await gateway.hf.inputs()] == [{"content": "still there?"}]


def chat(**changes: Any) -> bytes:
    return json.dumps({"model": "holdfast", "messages": [{"role": "user", "content": "hi"}], **changes}).encode()


BODIES: dict[str, tuple[str, bytes, int]] = {
    "nothing at all": (CHAT, b"", 400),
    "not JSON": (CHAT, b"hello", 400),
    "JSON cut short": (CHAT, chat()[:-5], 400),
    "not an object": (CHAT, b"[1, 2]", 400),
    "two values": (CHAT, chat() + chat(), 400),
    "a byte order mark": (CHAT, b"\xef\xbb\xbf" + chat(), 400),
    "NUL after the end": (CHAT, chat() + b"\0\0", 400),
    "not UTF-8": (CHAT, chat(user="x").replace(b'"x"', b'"\xff\xfe"'), 400),
    "NaN": (CHAT, chat(temperature=1.5).replace(b"1.5", b"NaN"), 400),
    "infinity": (CHAT, chat(temperature=1.5).replace(b"1.5", b"1e999"), 400),
    "a hundred thousand brackets": (CHAT, b"[" * 100_000, 400),
    "a hundred thousand objects": (CHAT, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
    "brackets deep in a message": (CHAT, chat(metadata=0).replace(b": 0", b": " + b"[" * 500 + b"]" * 500), 400),
    "no messages": (CHAT, chat(messages=[]), 400),
    "messages of another type": (CHAT, chat(messages="hi"), 400),
    "an empty message": (CHAT, chat(messages=[{"role": "user", "content": ""}]), 400),
    "an answer last": (CHAT, chat(messages=[{"role": "assistant", "content": "a"}]), 400),
    "an image from elsewhere": (
        CHAT,
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://169.254.1.1/"}}]}]),
        400,
    ),
    "a model of another type": (CHAT, chat(model=7), 400),
    "an unknown model": (CHAT, chat(model="nobody/nothing"), 404),
    "an agent with a path for a name": (CHAT, chat(model="holdfast/../x"), 400),
    "a user with line breaks": (CHAT, chat(user="a\r\nx-evil: 1"), 400),
    "a user whose key is too long": (CHAT, chat(user="a" * 600), 400),
    "stream of another type": (CHAT, chat(stream="yes"), 400),
    "a temperature in words": (CHAT, chat(temperature="hot"), 400),
    "tools of another type": (CHAT, chat(tools={"a": 1}), 400),
    "an empty text": (MESSAGES, b'{"text": ""}', 400),
    "a blank text": (MESSAGES, b'{"text": "  \\n "}', 400),
    "no text": (MESSAGES, b"{}", 400),
    "a text of another type": (MESSAGES, b'{"text": 7}', 400),
    "a lane of another type": (MESSAGES, b'{"text": "x", "lane": 1}', 400),
    "a lane without a name": (MESSAGES, b'{"text": "x", "lane": ""}', 400),
    "a lane that would begin a line of the log": (MESSAGES, b'{"text": "x", "lane": "a\\n[diagnostic]"}', 400),
    "a lane whose name is too long for a line": (MESSAGES, b'{"text": "x", "lane": "' + b"a" * 65 + b'"}', 400),
    "a model that no turn could ask": (MESSAGES, b'{"text": "x", "model": "nobody/nothing"}', 404),
    "a model that is no reference": (MESSAGES, b'{"text": "x", "model": "gpt"}', 404),
    "a route with line breaks": (MESSAGES, b'{"text": "x", "route": "console:me\\nholdfast:"}', 400),
    "a session that is blank": ("/api/sessions/%20/messages", b'{"text": "x"}', 400),
    "a session with control characters": ("/api/sessions/a%00b/messages", b'{"text": "x"}', 400),
    "a session over 512 bytes": (f"/api/sessions/{'a' * 513}/messages", b'{"text": "x"}', 400),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_body_is_refused(gateway: Served, name: str) -> None:
    path, body, status = BODIES[name]
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers | JSON, timeout=60) as http:
        refused = await http.post(path, content=body)
    assert refused.status_code == status, refused.text
    error = refused.json()["error"]
    assert error["message"]
    assert error["type"] == "invalid_request_error"


async def test_deep_json_is_refused_quickly(gateway: Served) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers | JSON, timeout=60) as http:
        refused = await http.post(CHAT, content=b"[" * 100_000)
    assert refused.status_code == 400
    assert refused.elapsed.total_seconds() < 1.0  # 0.1 on a quiet machine


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_body_over_the_limit_is_refused(gateway: Served, is_declared: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 65_536 + 2):
            yield b"x" * 65_536

    content = b"x" * (BODY_BYTES_MAX + 1) if is_declared else pieces()
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers | JSON, timeout=60) as http:
        refused = await http.post(CHAT, content=content)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")


async def test_a_message_of_ten_megabytes_is_taken(tmp_path: Path) -> None:
    async with (
        served(tmp_path / "state", model=ScriptedModel("long")) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http,
    ):
        answered = await http.post(MESSAGES, params={"wait": 1}, json={"text": "x" * 10_000_000})
    assert answered.json()["answer"] == "long"


async def test_a_line_over_its_limit_is_refused_and_not_stored(gateway: Served) -> None:
    text = (
        "x\u2028" * 2_600_000
    )  # 10 MB in the body, where a line break has three bytes; 18 MB in a line, where it has six
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http:
        refused = await http.post(MESSAGES, content=json.dumps({"text": text}, ensure_ascii=False), headers=JSON)
    assert refused.status_code == 413


async def test_half_an_emoji_is_taken(tmp_path: Path) -> None:
    async with (
        served(tmp_path / "state", model=ScriptedModel("seen")) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers | JSON, timeout=60) as http,
    ):
        answered = await http.post(MESSAGES, params={"wait": 1}, content=b'{"text": "cut \\ud83d here"}')
    assert answered.json()["payload"] == {"content": "cut ? here"}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"content-encoding": "gzip"}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:18890"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": ""}, 421),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Basic Zm9v"}, 401),
        ({"idempotency-key": ""}, 400),
        ({"idempotency-key": "k" * 600}, 400),
        ({"x-holdfast-session": ""}, 400),
    ],
)
async def test_a_request_from_the_wrong_place_is_refused(gateway: Served, changes: dict[str, str], status: int) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers | JSON | changes, timeout=60) as http:
        refused = await http.post(CHAT, content=chat())
    assert refused.status_code == status
    assert refused.json()["error"]["message"]
    assert refused.headers["x-content-type-options"] == "nosniff"


async def test_without_a_token_nothing_is_told(gateway: Served) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        described = (await http.get("/openapi.json", headers=gateway.headers)).json()["paths"]
        for path, methods in described.items():
            for method in methods:
                answer = await http.request(method, path.replace("{", "").replace("}", ""))
                is_open = path in ("/healthz", "/readyz")
                assert (answer.status_code == 200) == is_open, path
                assert (answer.status_code == 401) == (not is_open), path
        assert (await http.get("/docs")).status_code == 401


async def test_our_own_page_may_ask_and_the_name_may_have_a_port(gateway: Served) -> None:
    port = gateway.url.rpartition(":")[2]
    for host in (f"localhost:{port}", f"[::1]:{port}", "localhost"):
        own = {"host": host, "origin": f"http://{host}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers | own, timeout=60) as http:
            assert (await http.post("/api/inputs/in_0/cancel")).status_code == 404  # looked for, not refused


async def test_two_hosts_in_one_request_are_refused(gateway: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    assert answer.split()[1] == b"421"


async def test_nothing_is_changed_by_get(gateway: Served) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http:
        for path in (CHAT, MESSAGES, "/api/turns/turn_0/cancel", "/api/inputs/in_0/cancel"):
            assert (await http.get(path)).status_code in (404, 405), path


async def test_a_ledger_without_room_is_told_apart_from_one_that_failed(tmp_path: Path) -> None:
    def full(point: Point) -> None:
        if point == "ledger.before_commit" and is_full:
            raise sqlite3.OperationalError("database or disk is full")

    is_full = False
    async with holdfast.open(tmp_path / "state", faults=full) as hf:
        is_full = True
        with pytest.raises(holdfast.ResourceError) as refused:
            await hf.accept(InboundEvent("s", {"content": "hello"}))
        is_full = False
        refusal = refusal_of(refused.value)
        assert refusal is not None
        assert (refusal.status, refusal.code) == (507, "disk_full")
        assert isinstance(await hf.accept(InboundEvent("s", {"content": "hello"})), Accepted)


async def test_a_refusal_names_what_to_change(gateway: Served) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http:

        async def told(path: str, body: Any) -> str:
            return (await http.post(path, json=body)).json()["error"]["message"]

        assert await told(MESSAGES, {"txt": "hello"}) == (
            'what is said is missing: {"text": "…"}, or "content" with a text or a list of parts'
        )
        assert await told(MESSAGES, {"content": 7}) == "message.content: must be text or a list of parts"
        assert "set models.providers.nobody.base_url" in await told(MESSAGES, {"text": "x", "model": "nobody/nothing"})
        listed = await http.get("/api/inputs", params={"state": "done"})
    assert listed.status_code == 400
    assert listed.json()["error"]["message"].startswith("state: no state 'done'; there are answered, cancelled, failed")
