"""Tokens that may do less than everything: at every route, for every slash command, on sockets, and in browsers."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from holdfast.cli.main import run
from holdfast.config import Config
from holdfast.errors import ConfigError
from holdfast.gateway.guard import WRONG_MAX, Guard
from holdfast.gateway.tokens import CHANGES, TOKEN_CHARS_MIN, Tokens, needed, read_tokens
from holdfast.inbound.scope import SCOPES, granted
from holdfast.testing.clock import VirtualClock
from holdfast.testing.served import Served, served

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRETS = {scope: f"{scope}-token-of-at-least-24-characters" for scope in SCOPES}
ENV = {f"TOKEN_{scope.upper()}": secret for scope, secret in SECRETS.items()}
OPEN = {"/healthz", "/readyz", "/login", "/logout", "/.well-known/security.txt"}
OWN_KEY = ("/hooks/", "/channels/")


def config_with(**more: Any) -> Config:
    tokens = {f"of-{scope}": {"scopes": [scope], "token_env": f"TOKEN_{scope.upper()}"} for scope in SCOPES}
    hooks = {"enabled": True, "token_env": "HOOKS_TOKEN", "mappings": {"name": {}}}
    return Config.model_validate({"gateway": {"tokens": {**tokens, **more}}, "hooks": hooks})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    env = {**ENV, "HOOKS_TOKEN": "hooks-token-of-many-characters"}
    async with served(tmp_path_factory.mktemp("state"), config=config_with(), env=env) as there:
        yield there


def routes(gateway: Served) -> Iterator[tuple[str, str]]:
    """Every route of the application, those that are left out of its description too: method and path as declared."""
    guard = gateway.gateway.app
    assert isinstance(guard, Guard)
    app: Any = guard.inside
    yield from _routes(app.routes, "")


def _routes(found: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for one in found:
        inner = getattr(one, "original_router", None)
        if inner is not None:  # a router's routes have its prefix already
            yield from _routes(inner.routes, prefix)
        elif getattr(one, "methods", None):
            yield from ((method, prefix + one.path) for method in sorted(one.methods))
        else:
            yield "SOCKET", prefix + one.path


def filled(path: str) -> str:
    return path.replace("{key:path}", "agent:main:none").replace("{id:path}", "none").translate({123: None, 125: None})


async def test_every_route_asks_for_a_token_and_every_change_for_its_scope(gateway: Served) -> None:
    walked = list(routes(gateway))
    assert len(walked) > 50
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        for method, path in walked:
            if method == "SOCKET" or path in OPEN or path.startswith("/assets/"):
                continue
            bare = await http.request(method, filled(path))
            assert bare.status_code == 401, (method, path)
            if path.startswith(OWN_KEY):
                own = await http.request(method, filled(path), headers=gateway.headers, json={})
                assert own.status_code == 401, (method, path)  # the gateway's token opens nothing there
                continue
            wanted = needed(method, path)
            assert wanted is not None
            for scope in SCOPES:
                if wanted in granted([scope]):
                    continue
                headers = {"authorization": f"Bearer {SECRETS[scope]}"}
                refused = await http.request(method, filled(path), headers=headers, json={})
                assert refused.status_code == 403, (method, path, scope)
                assert refused.json()["error"]["code"] == "scope"


async def test_the_table_of_changes_names_no_route_that_is_not_there(gateway: Served) -> None:
    there = set(routes(gateway))
    assert set(CHANGES) <= there
    assert {method for method, _ in there if method not in ("GET", "HEAD", "SOCKET")} == {"POST", "PATCH", "DELETE"}


async def test_each_scope_does_what_it_says(gateway: Served) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:

        async def ask(scope: str, method: str, path: str, **body: Any) -> int:
            headers = {"authorization": f"Bearer {SECRETS[scope]}"}
            return (await http.request(method, path, headers=headers, json=body or None)).status_code

        assert [await ask(scope, "GET", "/api/sessions") for scope in SCOPES] == [200] * 4
        said = "/api/sessions/agent:main:main/messages"
        assert [await ask(scope, "POST", said, text="hello") for scope in SCOPES] == [403, 202, 403, 202]
        approve = "/api/approvals/none"
        assert [await ask(scope, "POST", approve, answer="deny") for scope in SCOPES] == [403, 403, 404, 404]
        assert [await ask(scope, "POST", "/api/sessions/prune", dry_run=True) for scope in SCOPES] == [403] * 3 + [200]


@pytest.mark.parametrize("command", ["/approve ap_1", "/deny ap_1", " /approve ap_1 session"])
async def test_a_command_that_approves_takes_more_than_talking(gateway: Served, command: str) -> None:
    talking = {"authorization": f"Bearer {SECRETS['write']}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=talking, timeout=60) as http:
        for path, body in (
            ("/api/sessions/agent:main:main/messages", {"text": command}),
            ("/api/messages", {"channel": "c", "peer": "p", "text": command}),
        ):
            before = len(await gateway.hf.inputs(limit=1000))
            answer = await http.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "scope"), (path, answer.text)
            assert len(await gateway.hf.inputs(limit=1000)) == before
        assert (await http.post("/api/sessions/agent:main:main/messages", json={"text": "/status"})).status_code == 202


async def test_a_browser_may_do_what_the_token_may_that_it_has_shown(gateway: Served) -> None:
    headers = {"origin": gateway.url, "accept": "text/html"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60) as http:
        await http.post("/login", data={"token": SECRETS["read"]})
        told = (await http.get("/api/login")).json()
        assert (told["token"], told["scopes"]) == ("of-read", ["read"])
        http.headers["x-holdfast-csrf"] = told["csrf"]
        assert (await http.get("/api/sessions")).status_code == 200
        refused = await http.post("/api/sessions/agent:main:main/messages", json={"text": "hello"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "scope")


async def test_a_socket_of_a_reader_shows_everything_and_takes_nothing(gateway: Served) -> None:
    url = gateway.url.replace("http", "ws") + "/api/chat"
    headers = {"authorization": f"Bearer {SECRETS['read']}"}
    before = len(await gateway.hf.inputs(limit=1000))
    async with connect(url, additional_headers=headers, origin=None) as socket:
        await socket.send(json.dumps({"type": "hello", "conversation": "main"}))
        await socket.send(json.dumps({"type": "say", "id": "message-1", "text": "hello"}))
        while (frame := json.loads(await socket.recv()))["type"] != "receipt":
            pass
    assert frame["outcome"] == "refused"
    assert "scope 'write'" in frame["reason"]
    assert len(await gateway.hf.inputs(limit=1000)) == before


async def test_wrong_tokens_are_told_to_wait_and_the_right_one_is_not(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with served(tmp_path, clock=clock) as there, httpx.AsyncClient(base_url=there.url, timeout=60) as http:
        wrong = {"authorization": "Bearer wrong"}
        found = [(await http.get("/api/sessions", headers=wrong)).status_code for _ in range(WRONG_MAX + 1)]
        assert found == [401] * WRONG_MAX + [429]
        assert (await http.get("/api/sessions", headers=there.headers)).status_code == 200
        await clock.advance(61)
        assert (await http.get("/api/sessions", headers=wrong)).status_code == 401


async def test_a_token_asks_for_no_more_changes_a_minute_than_it_may(tmp_path: Path) -> None:
    clock = VirtualClock()
    config = config_with(slow={"scopes": ["write"], "token_env": "SLOW", "per_minute": 2})
    env = {**ENV, "SLOW": "slow-token-of-at-least-24-characters", "HOOKS_TOKEN": "hooks-token-of-many-characters"}
    async with served(tmp_path, config=config, env=env, clock=clock) as there:
        headers = {"authorization": f"Bearer {env['SLOW']}"}
        async with httpx.AsyncClient(base_url=there.url, headers=headers, timeout=60) as http:
            cancel = "/api/inputs/in_0/cancel"
            answers = [await http.post(cancel) for _ in range(3)]
            assert [one.status_code for one in answers] == [404, 404, 429]
            assert 1 <= int(answers[2].headers["retry-after"]) <= 61
            assert (await http.get("/api/sessions")).status_code == 200  # reading is not counted
            await clock.advance(61)
            assert (await http.post(cancel)).status_code == 404


async def test_tokens_that_cannot_hold_are_all_named_at_once(tmp_path: Path) -> None:
    own, good = "o" * 43, tmp_path / "good"
    good.write_text("g" * 43 + "\n")
    good.chmod(0o600)
    opened = tmp_path / "open"
    opened.write_text("p" * 43)
    opened.chmod(0o644)
    tokens: dict[str, Any] = {
        "good": {"scopes": ["read"], "token_file": str(good)},
        "hashed": {"scopes": ["admin"], "sha256": hashlib.sha256(b"x" * 43).hexdigest()},
        "short": {"scopes": ["read"], "token_env": "SHORT"},
        "missing": {"scopes": ["read"], "token_env": "MISSING"},
        "opened": {"scopes": ["read"], "token_file": str(opened)},
        "twin": {"scopes": ["read"], "sha256": hashlib.sha256(b"g" * 43).hexdigest()},
        "same": {"scopes": ["read"], "token_env": "OWN"},
    }
    env = {"SHORT": "x" * (TOKEN_CHARS_MIN - 1), "OWN": own}
    config = Config.model_validate({"gateway": {"tokens": tokens}})
    with pytest.raises(ConfigError) as refused:
        read_tokens(config, env, own=own)
    named = sorted(fault.split(":")[0] for fault in refused.value.faults)
    assert named == [
        "gateway.tokens.missing.token_env", "gateway.tokens.opened.token_file", "gateway.tokens.same",
        "gateway.tokens.short.token_env", "gateway.tokens.twin",
    ]  # fmt: skip
    kept = Config.model_validate({"gateway": {"tokens": {name: tokens[name] for name in ("good", "hashed")}}})
    assert [one.name for one in read_tokens(kept, os.environ, own=own)] == ["gateway", "good", "hashed"]


def test_the_command_makes_a_token_that_the_configuration_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["token", "new", "grafana board", "--scope", "read", "--scope", "approve"]
    assert run([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert run([*arguments, "--file", str(tmp_path / "t")]) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600
    secret = (tmp_path / "t").read_text().strip()
    assert secret not in said
    for toml, shown in ((told["toml"], told["token"]), (said.partition("toml:\n\n")[2], secret)):
        assert told["token"] not in toml
        config = Config.model_validate({"gateway": {"tokens": tomllib.loads(toml)["gateway"]["tokens"]}})
        found = Tokens(read_tokens(config, {}, own="o" * 43)).of_secret(shown.encode())
        assert found is not None
        assert (found.name, found.scopes) == ("grafana board", {"read", "approve"})
    assert run([*arguments, "--file", str(tmp_path / "t")]) == 1
    assert (tmp_path / "t").read_text().strip() == secret
