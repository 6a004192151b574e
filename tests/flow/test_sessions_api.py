"""Sessions as a whole over HTTP, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served

KEY = "agent:main:main"
SESSION = f"/api/sessions/{KEY}"


@asynccontextmanager
async def calling(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:
    async with (
        served(tmp_path / "state", model=model) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http,
    ):
        yield gateway, http


async def say(http: httpx.AsyncClient, text: str) -> str:
    answered = await http.post(f"/api/sessions/{KEY}/messages", params={"wait": 1}, json={"text": text})
    assert answered.status_code == 200, answered.text
    return answered.json()["answer"]


async def test_a_session_is_named_put_away_brought_back_and_deleted(tmp_path: Path) -> None:
    async with calling(tmp_path, ScriptedModel("one", "two", "three")) as (_, http):
        assert await say(http, "hello") == "one"
        named = await http.patch(SESSION, json={"title": "Ours"})
        assert (named.status_code, named.json()) == (200, {"session": KEY, "title": "Ours"})
        [session] = (await http.get("/api/sessions")).json()["sessions"]
        assert (session["title"], session["archived_at_ms"]) == ("Ours", None)
        archive = (await http.post(f"{SESSION}/archive")).json()
        assert (archive["session"], archive["title"], archive["why"]) == (KEY, "Ours", "asked")
        [session] = (await http.get("/api/sessions")).json()["sessions"]
        assert (session["title"], session["archived_at_ms"]) == (None, archive["at_ms"])
        assert (await http.post(f"{SESSION}/archive")).status_code == 409  # nothing in it
        assert await say(http, "again") == "two"
        restored = await http.post(f"/api/archives/{archive['id']}/restore")
        assert (restored.status_code, restored.json()["session"]) == (200, KEY)
        [since] = (await http.get("/api/archives", params={"session": KEY})).json()["archives"]
        assert since["why"] == "restored over"
        deleted = await http.delete(SESSION)
        assert deleted.json()["why"] == "deleted"
        for one in (await http.get("/api/archives")).json()["archives"]:
            assert (await http.delete(f"/api/archives/{one['id']}")).json()["bytes"] == one["bytes"]
        assert (await http.get("/api/archives")).json() == {"archives": []}
        assert (await http.delete(f"/api/archives/{archive['id']}")).status_code == 404
        assert await say(http, "and on") == "three"


async def test_what_is_in_use_stays_and_is_said_to(tmp_path: Path) -> None:
    model = ScriptedModel("one")
    model.hold()
    async with calling(tmp_path, model) as (gateway, http):
        posted = await http.post(f"/api/sessions/{KEY}/messages", json={"text": "hello"})
        await model.asked(1)
        for method, path in (("DELETE", SESSION), ("POST", f"{SESSION}/archive"), ("POST", f"{SESSION}/reset")):
            refused = await http.request(method, path)
            assert refused.status_code == 409, refused.text
            assert refused.json()["error"]["code"] == "session_busy"
        assert (await http.patch(SESSION, json={"title": "Meanwhile"})).status_code == 200  # metadata disturbs no turn
        model.release()
        settled = await gateway.hf.wait_input(posted.json()["id"], 20)
        assert settled.state == "answered"
        assert (await http.post(f"{SESSION}/reset", params={"wait_s": 5})).json()["result"] == "reset"


async def test_receipts_and_retention_over_http(tmp_path: Path) -> None:
    async with calling(tmp_path, ScriptedModel("one")) as (_, http):
        await say(http, "hello")
        assert (await http.post(f"{SESSION}/read", json={"by": "alice"})).json()["noted"] is True
        assert (await http.post(f"{SESSION}/read", json={"by": "alice"})).json()["noted"] is False
        found = (await http.post("/api/sessions/prune", json={"dry_run": True})).json()
        assert (found["dry_run"], found["steps"]) == (True, [])
        assert found["total_bytes"] > 0


async def test_bad_requests_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    async with calling(tmp_path, ScriptedModel()) as (_, http):
        unknown = "/api/sessions/agent:main:never"
        assert (await http.patch(unknown, json={"title": "x"})).status_code == 404
        assert (await http.post(f"{unknown}/archive")).status_code == 404
        assert (await http.patch(SESSION, json={})).status_code == 400
        assert (await http.post(f"{SESSION}/read", json={"by": 1})).status_code == 400
        assert (await http.post("/api/sessions/prune", json={"dry_run": "yes"})).status_code == 400
        assert (await http.post("/api/archives/a_none/restore")).status_code == 404
        assert (await http.get("/api/sessions", headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await http.get("/api/sessions")).json() == {"sessions": []}
