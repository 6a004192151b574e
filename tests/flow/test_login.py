"""Browsers log in with the token once, hold a cookie for a time, and change nothing by the cookie alone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from holdfast.config import Config
from holdfast.gateway.login import FAILURES_MAX, FAILURES_S, cookie_name
from holdfast.gateway.login_api import LEADS_TO
from holdfast.testing.clock import VirtualClock
from holdfast.testing.served import Served, served

HTML = {"accept": "text/html,*/*"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One for all that leaves nothing behind but messages and logins."""
    async with served(tmp_path_factory.mktemp("state")) as there:
        yield there


@asynccontextmanager
async def browser(there: Served) -> AsyncIterator[httpx.AsyncClient]:
    """A client that keeps cookies and says where its page comes from."""
    async with httpx.AsyncClient(base_url=there.url, headers={**HTML, "origin": there.url}, timeout=60) as http:
        yield http


async def log_in(http: httpx.AsyncClient, token: str, leads_to: str = "/docs") -> httpx.Response:
    return await http.post("/login", data={"token": token, "next": leads_to})


async def test_a_browser_is_led_to_the_login_and_from_there_to_the_page_it_wanted(gateway: Served) -> None:
    async with browser(gateway) as http:
        sent_on = await http.get("/docs")
        assert (sent_on.status_code, sent_on.headers["location"]) == (303, "/login?next=/docs")
        page = await http.get(sent_on.headers["location"])
        assert page.status_code == 200
        assert 'value="/docs"' in page.text
        logged_in = await log_in(http, gateway.token)
        assert (logged_in.status_code, logged_in.headers["location"]) == (303, "/docs")
        assert (await http.get("/docs")).text.startswith("<!doctype html>")
        assert (await http.get("/openapi.json")).json()["info"]["title"] == "Holdfast gateway"
        assert (await http.get("/api/sessions")).status_code == 200


async def test_programs_are_not_led_anywhere(gateway: Served) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        assert (await http.get("/docs")).status_code == 401
        assert (await http.get("/docs", headers={**HTML, "authorization": "Bearer wrong"})).status_code == 401
        assert (await http.get("/api/sessions", headers=HTML)).status_code == 401


async def test_the_cookie_is_for_this_name_and_no_script(gateway: Served) -> None:
    async with browser(gateway) as http:
        said = (await log_in(http, gateway.token)).headers["set-cookie"]
        port = gateway.url.rpartition(":")[2]
        assert re.fullmatch(
            rf"holdfast_session_{port}=[A-Za-z0-9_-]{{43}}; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict", said
        )
        assert gateway.token not in said


async def test_over_tls_the_cookie_is_for_tls_alone(tmp_path: Path) -> None:
    config = Config.model_validate({"gateway": {"login": {"secure": True, "hours": 1.0}}})
    async with served(tmp_path, config=config) as there, browser(there) as http:
        said = (await log_in(http, there.token)).headers["set-cookie"]
        assert said.endswith("Max-Age=3600; HttpOnly; SameSite=Strict; Secure")


async def test_a_change_needs_more_than_the_cookie(gateway: Served) -> None:
    path = "/api/sessions/agent:main:main/messages"
    async with browser(gateway) as http:
        await log_in(http, gateway.token)
        csrf = (await http.get("/api/login")).json()["csrf"]
        bare = await http.post(path, json={"text": "hello"})
        wrong = await http.post(path, json={"text": "hello"}, headers={"x-holdfast-csrf": "0" * 64})
        foreign = await http.post(
            path, json={"text": "hello"}, headers={"x-holdfast-csrf": csrf, "origin": "http://localhost:3000"}
        )
        assert [one.status_code for one in (bare, wrong, foreign)] == [403, 403, 403]
        del http.headers["origin"]
        silent = await http.post(path, json={"text": "hello"}, headers={"x-holdfast-csrf": csrf})
        assert silent.status_code == 403
        assert await gateway.hf.inputs(limit=10) == []
        ours = {"x-holdfast-csrf": csrf, "origin": gateway.url}
        assert (await http.post(path, json={"text": "hello"}, headers=ours)).status_code == 202


async def test_logging_out_ends_it_for_whoever_holds_the_cookie(gateway: Served) -> None:
    async with browser(gateway) as http:
        await log_in(http, gateway.token)
        cookies = dict(http.cookies)
        refused = await http.post("/logout", data={"csrf": "wrong"})
        assert refused.status_code == 403
        page = (await http.get("/login")).text
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
        assert found is not None
        gone = await http.post("/logout", data={"csrf": found[1]})
        assert (gone.status_code, gone.headers["location"]) == (303, "/login")
        assert "Max-Age=0" in gone.headers["set-cookie"]
        async with httpx.AsyncClient(base_url=gateway.url, cookies=cookies, timeout=60) as thief:
            assert (await thief.get("/docs")).status_code == 401


async def test_a_login_is_over_after_its_time_and_outlives_the_gateway(tmp_path: Path) -> None:
    config = Config.model_validate({"gateway": {"login": {"hours": 0.01}}})
    async with served(tmp_path, config=config) as there, browser(there) as http:
        await log_in(http, there.token)
        [(name, secret)] = http.cookies.items()
    clock = VirtualClock(datetime.now(UTC))
    async with served(tmp_path, clock=clock) as there:
        headers = {"cookie": f"{cookie_name(there.url)}={secret}"}
        async with httpx.AsyncClient(base_url=there.url, headers=headers, timeout=60) as http:
            assert (await http.get("/docs")).status_code == 200
            await clock.advance(37)
            assert (await http.get("/docs")).status_code == 401
    assert name.startswith("holdfast_session_")


async def test_another_token_ends_every_login(tmp_path: Path) -> None:
    async with served(tmp_path) as there, browser(there) as http:
        await log_in(http, there.token)
        [secret] = http.cookies.values()
    (tmp_path / "token").unlink()
    async with served(tmp_path) as there:
        headers = {"cookie": f"{cookie_name(there.url)}={secret}"}
        async with httpx.AsyncClient(base_url=there.url, headers=headers, timeout=60) as http:
            assert (await http.get("/docs")).status_code == 401


async def test_wrong_tokens_are_told_and_after_some_of_them_nobody_is_let_in_for_a_while(tmp_path: Path) -> None:
    clock = VirtualClock(datetime.now(UTC))
    async with served(tmp_path, clock=clock) as there, browser(there) as http:
        for _ in range(FAILURES_MAX - 1):
            wrong = await log_in(http, "guess")
            assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
            assert "not the token" in wrong.text
        assert (await log_in(http, "guess")).status_code == 429
        locked = await log_in(http, there.token)
        assert (locked.status_code, locked.headers["retry-after"]) == (429, str(int(FAILURES_S)))
        await clock.advance(FAILURES_S)
        assert (await log_in(http, there.token)).status_code == 303


@pytest.mark.parametrize(
    "leads_to", ["//evil.example", "http://evil.example/", "/docs/../x", "/\\evil.example", "/api"]
)
async def test_a_login_leads_nowhere_else(gateway: Served, leads_to: str) -> None:
    async with browser(gateway) as http:
        assert "evil" not in (await http.get("/login", params={"next": leads_to})).text
        assert (await log_in(http, gateway.token, leads_to)).headers["location"] in LEADS_TO


async def test_a_login_from_another_page_is_refused(gateway: Served) -> None:
    async with browser(gateway) as http:
        for origin in ("http://evil.example", "null", "http://localhost:3000"):
            refused = await http.post("/login", data={"token": gateway.token}, headers={"origin": origin})
            assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)


async def test_what_is_no_form_is_refused(gateway: Served) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    async with browser(gateway) as http:
        assert (await http.post("/login", json={"token": gateway.token})).status_code == 415
        assert (await http.post("/login", content=b"a=1&" * 20, headers=form)).status_code == 400
        assert (await http.post("/login", content=b"token=\xff", headers=form)).status_code == 400
        assert (await http.post("/login", content=b"x" * 5000, headers=form)).status_code == 413
        assert (await http.post("/login", content=b"token=%ff%00", headers=form)).status_code == 401


async def test_pages_take_nothing_inline_and_nothing_from_elsewhere(gateway: Served) -> None:
    async with browser(gateway) as http:
        page = await http.get("/login")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["referrer-policy"] == "same-origin"
        assert not re.search(r"<style|<script(?![^>]*src=)|\son\w+=|style=", page.text)
        for path in re.findall(r'(?:href|src)="(/assets/[^"]+)"', page.text):
            asset = await http.get(path)
            assert asset.status_code == 200
            assert asset.headers["x-content-type-options"] == "nosniff"
        assert (await http.get("/assets/../http.py")).status_code in (401, 404)
