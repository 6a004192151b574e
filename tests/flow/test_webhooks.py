"""Webhooks over a real socket: who is let in, what is stored once, and what becomes of it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.config import Config
from holdfast.errors import ConfigError
from holdfast.gateway.hook_rules import hook_rules
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served

TOKEN, SECRET = "a token for the hooks alone", "a secret of github"
HOOKS = {
    "enabled": True,
    "mappings": {
        "github": {
            "scheme": "github",
            "secret_env": "GITHUB_SECRET",
            "events": ["pull_request", "issues"],
            "session": "hook:{{ repository.full_name }}",
            "message": "{{ action }}: {{ pull_request.title }}",
            "per_minute": 100,
        },
        "bare": {"trusted": True, "message": "say {{ word }}", "per_minute": 3},
        "bell": {"wakes": "main"},
    },
}
ENV = {"HOLDFAST_HOOKS_TOKEN": TOKEN, "GITHUB_SECRET": SECRET}
BEARER = {"authorization": f"Bearer {TOKEN}"}
PAYLOAD = {"action": "opened", "pull_request": {"title": "Mend it"}, "repository": {"full_name": "a/b"}}


@asynccontextmanager
async def hooked(tmp_path: Path, **hooks: Any) -> AsyncIterator[tuple[Served, httpx.AsyncClient, ScriptedModel]]:
    model = ScriptedModel(otherwise=lambda request: "seen: " + request.messages[-1]["content"][0]["text"][:20])
    config = Config.model_validate({"hooks": {**HOOKS, **hooks}})
    async with (
        served(tmp_path / "state", model=model, config=config, env=ENV) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=60) as http,
    ):
        yield gateway, http, model


def from_github(payload: Any = PAYLOAD, *, delivery: str = "guid-1", event: str = "pull_request") -> dict[str, Any]:
    body = json.dumps(payload).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "content-type": "application/json",
        "x-github-delivery": delivery,
        "x-github-event": event,
        "x-hub-signature-256": f"sha256={signature}",
    }
    return {"content": body, "headers": headers}


async def test_a_signed_delivery_becomes_one_turn_however_often_it_is_sent_again(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (gateway, http, model):
        first = await http.post("/hooks/github", **from_github())
        assert first.status_code == 202
        input_id = first.json()["id"]
        again = await asyncio.gather(*(http.post("/hooks/github", **from_github()) for _ in range(20)))
        assert {(one.status_code, one.json()["id"], one.json()["duplicate"]) for one in again} == {
            (200, input_id, True)
        }
        view = await gateway.hf.wait_input(input_id, 20)
        late = await http.post("/hooks/github", **from_github())
        assert (late.json()["state"], late.json()["answer"]) == ("answered", view.answer)
        assert len(model.requests) == 1
        assert (view.session, view.lane) == ("hook:a/b", "hook")
        told = view.payload["content"]
        assert told.startswith("A webhook (github) delivered")
        assert "\nopened: Mend it\n" in told


async def test_every_published_example_of_github_is_one_turn_however_often_it_is_redelivered(tmp_path: Path) -> None:
    """The payloads come from GitHub's examples (`scripts/webhook_examples.py`), sent by a real client."""
    payloads = json.loads((Path(__file__).parent / "github_examples.json").read_text())["payloads"]
    hook = {"scheme": "github", "secret_env": "GITHUB_SECRET", "per_minute": 10_000, "session": "hook:{{ event }}"}
    async with hooked(tmp_path, mappings={"github": hook}) as (gateway, http, model):
        stored: dict[str, str] = {}
        for event, payload in payloads.items():
            sent = from_github(payload, delivery=f"guid-{event}", event=event)
            answers = [await http.post("/hooks/github", **sent) for _ in range(6)]
            assert [one.status_code for one in answers] == [202, 200, 200, 200, 200, 200], (event, answers[0].text)
            [stored[event]] = {one.json()["id"] for one in answers}
        for event, input_id in stored.items():
            view = await gateway.hf.wait_input(input_id, 60)
            assert (view.state, view.session) == ("answered", f"hook:{event}")
        assert len(stored) > 50
        assert len(model.requests) == len(stored)


async def test_the_same_delivery_with_another_body_is_refused(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (_, http, _):
        await http.post("/hooks/github", **from_github())
        other = {**PAYLOAD, "action": "closed"}
        assert (await http.post("/hooks/github", **from_github(other))).status_code == 409


async def test_events_that_are_not_wanted_are_answered_and_stored_nowhere(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (gateway, http, _):
        ignored = await http.post("/hooks/github", **from_github(event="star"))
        assert (ignored.status_code, ignored.json()) == (200, {"state": "ignored", "event": "star"})
        assert await gateway.hf.inputs() == []


async def test_forged_and_unsigned_deliveries_are_refused_and_stored_nowhere(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (gateway, http, _):
        good = from_github()
        forged = {**good, "content": good["content"].replace(b"opened", b"closed")}
        unsigned = {**good, "headers": {k: v for k, v in good["headers"].items() if k != "x-hub-signature-256"}}
        with_token = {**good, "headers": {**unsigned["headers"], **BEARER}}
        deliveries: list[dict[str, Any]] = [forged, unsigned, with_token]
        for bad in deliveries:
            assert (await http.post("/hooks/github", **bad)).status_code == 401
        refused: list[dict[str, str]] = [{}, gateway.headers, {"authorization": "Bearer wrong"}]
        for headers in refused:
            assert (await http.post("/hooks/agent", json={"message": "hello"}, headers=headers)).status_code == 401
        in_query = await http.post("/hooks/agent", params={"token": TOKEN}, json={"message": "hello"}, headers=BEARER)
        assert (in_query.status_code, in_query.json()["error"]["code"]) == (400, "token_in_query")
        assert await gateway.hf.inputs() == []


async def test_the_token_of_the_hooks_opens_nothing_else(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (_, http, _):
        assert (await http.get("/api/inputs", headers=BEARER)).status_code == 401


async def test_after_twenty_wrong_keys_nobody_at_that_address_is_listened_to(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (_, http, _):
        wrong = {"authorization": "Bearer wrong"}
        codes = [(await http.post("/hooks/agent", json={"message": "x"}, headers=wrong)).status_code for _ in range(21)]
        assert codes == [401] * 20 + [429]
        right = await http.post("/hooks/agent", json={"message": "x"}, headers=BEARER)
        assert right.status_code == 429
        assert int(right.headers["retry-after"]) > 0


async def test_a_hook_takes_so_many_deliveries_a_minute(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (_, http, _):
        codes = [(await http.post("/hooks/bare", json={"word": n}, headers=BEARER)).status_code for n in range(4)]
        assert codes == [202, 202, 202, 429]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x" * 262_145, {}, 413),
        (b"{}", {"content-encoding": "gzip"}, 415),
        (b"[" * 100_000, {}, 400),
        (b'{"message": ""}', {}, 400),
        (b"[]", {}, 400),
        (b'{"message": "x", "session": "agent:main:main"}', {}, 400),
        (b'{"message": "x", "agent": "other"}', {}, 400),
        (b'{"message": "x", "channel": "nowhere", "to": "me"}', {}, 400),
        (b'{"message": "x"}', {"idempotency-key": "k" * 401}, 400),
    ],
)
async def test_bad_input_is_refused_by_name(tmp_path: Path, body: bytes, headers: dict[str, str], status: int) -> None:
    async with hooked(tmp_path) as (gateway, http, _):
        answer = await http.post("/hooks/agent", content=body, headers={**BEARER, **headers})
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["message"]
        assert await gateway.hf.inputs() == []


async def test_an_agent_is_asked_in_a_session_of_its_own_and_the_status_tells_how_it_went(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (gateway, http, _):
        ask = {"message": "look after it", "name": "ci", "channel": "console", "to": "me"}
        accepted = await http.post("/hooks/agent", json=ask, headers={**BEARER, "idempotency-key": "run-7"})
        assert accepted.status_code == 202
        told = accepted.json()
        assert told["session"].startswith("hook:")
        await gateway.hf.wait_input(told["id"], 20)
        status = await http.get(told["status"], headers=BEARER)
        assert (status.json()["state"], status.json()["settled"]) == ("answered", True)
        assert [one["route"] for one in status.json()["deliveries"]] == ["console:me"]
        again = await http.post("/hooks/agent", json=ask, headers={**BEARER, "idempotency-key": "run-7"})
        assert again.json()["id"] == told["id"]


async def test_a_status_is_told_only_of_what_came_by_a_hook(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (gateway, http, _):
        path = "/api/sessions/agent:main:main/messages"
        mine = (await http.post(path, json={"text": "private"}, headers=gateway.headers)).json()["id"]
        assert (await http.get(f"/hooks/runs/{mine}", headers=BEARER)).status_code == 404


async def test_a_caller_may_choose_a_session_only_where_that_is_allowed_and_only_within_the_prefixes(
    tmp_path: Path,
) -> None:
    async with hooked(tmp_path, allow_request_session=True) as (_, http, _):
        for session, status in (("hook:mine", 202), ("agent:main:main", 400)):
            answer = await http.post("/hooks/agent", json={"message": "x", "session": session}, headers=BEARER)
            assert answer.status_code == status


async def test_a_payload_cannot_choose_a_session_outside_the_prefixes(tmp_path: Path) -> None:
    mappings = {"free": {"session": "{{ where }}", "message": "x"}}
    async with hooked(tmp_path, mappings=mappings) as (_, http, _):
        bad = await http.post("/hooks/free", json={"where": "agent:main:main"}, headers=BEARER)
        assert (bad.status_code, "hook:" in bad.json()["error"]["message"]) == (400, True)
        assert (await http.post("/hooks/free", json={"where": "hook:x"}, headers=BEARER)).status_code == 202


async def test_a_wake_is_kept_for_the_heartbeat_once(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (gateway, http, _):
        headers = {**BEARER, "idempotency-key": "bell-1"}
        wake = {"text": "the build is red", "mode": "next-heartbeat"}
        answers = [await http.post("/hooks/wake", json=wake, headers=headers) for _ in range(2)]
        assert [one.status_code for one in answers] == [202, 200]
        await http.post("/hooks/bell", json={"ring": 1}, headers=BEARER)
        texts = [one.text for one in await gateway.hf.store.wakes()]
        assert texts[0] == "the build is red"
        assert '{"ring": 1}' in texts[1]


async def test_slacks_check_of_the_address_is_answered_only_if_it_is_signed(tmp_path: Path) -> None:
    mappings = {"slack": {"scheme": "slack", "secret_env": "GITHUB_SECRET"}}
    async with hooked(tmp_path, mappings=mappings) as (gateway, http, _):
        body = json.dumps({"type": "url_verification", "challenge": "abc"}).encode()
        at = str(int(gateway.hf.clock.now().timestamp()))
        digest = hmac.new(SECRET.encode(), b"v0:" + at.encode() + b":" + body, hashlib.sha256).hexdigest()
        headers = {"x-slack-request-timestamp": at, "x-slack-signature": f"v0={digest}"}
        assert (await http.post("/hooks/slack", content=body, headers=headers)).json() == {"challenge": "abc"}
        assert (await http.post("/hooks/slack", content=body)).status_code == 401


async def test_without_hooks_the_doors_are_not_there(tmp_path: Path) -> None:
    async with served(tmp_path / "state", model=ScriptedModel()) as gateway, httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(f"{gateway.url}/hooks/agent", json={"message": "x"}, headers=BEARER)
        assert answer.status_code == 404


def test_what_could_not_hold_is_refused_at_start_all_of_it_at_once() -> None:
    mappings = {
        "agent": {}, "signed": {"scheme": "github"}, "same": {"secret_env": "SAME"}, "lost": {"route": "moon:me"},
        "bell": {"wakes": "nobody"},
    }  # fmt: skip
    config = Config.model_validate({"hooks": {"enabled": True, "mappings": mappings}})
    with pytest.raises(ConfigError) as refused:
        hook_rules(config, {"HOLDFAST_HOOKS_TOKEN": "short", "SAME": "T" * 32}, token="T" * 32, channels=["console"])
    told = "\n".join(refused.value.faults)
    for word in ("shorter than 16", "signed: has no secret", "same: its secret is the gateway's", "'agent' cannot be",
                 "no channel 'moon'", "'nobody' is not among"):  # fmt: skip
        assert word in told


async def test_a_session_that_the_configuration_names_needs_no_prefix(tmp_path: Path) -> None:
    mappings = {"build": {"session": "agent:main:main", "message": "x"}}
    async with hooked(tmp_path, mappings=mappings) as (_, http, _):
        taken = await http.post("/hooks/build", json={}, headers=BEARER)
        assert (taken.status_code, taken.json()["session"]) == (202, "agent:main:main")


async def test_the_documentation_names_the_hooks_that_are_open(tmp_path: Path) -> None:
    async with hooked(tmp_path) as (gateway, _, _), httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        page = (await http.get("/docs", headers=gateway.headers)).text
        described = (await http.get("/openapi.json", headers=gateway.headers)).json()["paths"]
    for path in ("/hooks/agent", "/hooks/wake", "/hooks/{name}"):
        assert path in page
        assert path in described
