"""The web chat from end to end: a gateway, and browsers that come over sockets, leave, and come again."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import holdfast
from holdfast.config import Config
from holdfast.gateway.assets import ASSETS, FOLDER
from holdfast.gateway.login import cookie_name
from holdfast.gateway.web_api import BEAT_S, FRAMES_MAX, PAGE_MAIL
from holdfast.testing.clock import VirtualClock
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served
from holdfast.testing.world import echo
from tests.flow.test_streaming import ANSWER, BEGIN, Halting

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENCE_S = 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One for all; each test has a conversation of its own."""
    async with served(tmp_path_factory.mktemp("state"), model=ScriptedModel(otherwise=echo)) as there:
        yield there


class Browser:
    """A page that is open. `frames`: all that it was sent."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []

    async def send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def until(self, kind: str, **facts: Any) -> dict[str, Any]:
        """The next frame of a kind; with these values, if any are given."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                frame = json.loads(await self.socket.recv())
                self.frames.append(frame)
                if frame["type"] == kind and all(frame[name] == value for name, value in facts.items()):
                    return frame

    async def closes(self) -> int | None:
        """The code with which it is sent away."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    self.frames.append(json.loads(await self.socket.recv()))
                except ConnectionClosed as closed:
                    return closed.rcvd.code if closed.rcvd is not None else None

    @property
    def shown(self) -> list[str]:
        return [frame["text"] for frame in self.frames if frame["type"] == "message"]


@asynccontextmanager
async def page(
    there: Served, conversation: str = "main", after: int | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[Browser]:
    """A program's, with the token, unless `headers` say otherwise."""
    url = there.url.replace("http:", "ws:") + "/api/chat"
    async with connect(url, additional_headers=headers or there.headers) as socket:
        browser = Browser(socket)
        await browser.send(type="hello", conversation=conversation, after=after)
        yield browser


async def logged_in(there: Served) -> dict[str, str]:
    """What a browser of ours sends."""
    async with httpx.AsyncClient(base_url=there.url, timeout=60) as http:
        await http.post("/login", data={"token": there.token})
        return {"cookie": f"{cookie_name(there.url)}={http.cookies[cookie_name(there.url)]}", "origin": there.url}


async def say(browser: Browser, text: str, name: str = "message-1") -> dict[str, Any]:
    await browser.send(type="say", id=name, text=text)
    return await browser.until("receipt", id=name)


async def test_what_is_said_is_stored_shown_and_answered(gateway: Served) -> None:
    async with page(gateway, "first", headers=await logged_in(gateway)) as browser:
        assert (await browser.until("welcome"))["conversation"] == "first"
        assert (await browser.until("ready"))["more"] is False
        receipt = await say(browser, "hello")
        assert receipt["outcome"] == "taken"
        view = await gateway.hf.input(receipt["input"])
        assert (view.session, view.source) == ("agent:main:web:direct:owner:thread:first", "channel:web")
        answer = await browser.until("message", who="agent")
        assert (answer["text"], browser.shown) == ("re: hello", ["hello", "re: hello"])


async def test_the_main_conversation_is_the_owners_own(gateway: Served) -> None:
    async with page(gateway) as browser:
        receipt = await say(browser, "hello", "message-main")
        assert (await gateway.hf.input(receipt["input"])).session == "agent:main:web:direct:owner"
        await browser.until("message", who="agent")


@pytest.mark.promise("P4")
async def test_a_browser_that_was_away_gets_what_it_missed_once(gateway: Served) -> None:
    async with page(gateway, "away") as browser:
        await say(browser, "one")
        seen = (await browser.until("message", who="agent"))["seq"]
        await browser.send(type="say", id="message-2", text="two")
    async with page(gateway, "away") as other:
        await other.until("message", text="re: two")
    async with page(gateway, "away", seen) as browser:
        await browser.until("ready")
        assert browser.shown == ["two", "re: two"]
        last = browser.frames[-2]["seq"]
    async with page(gateway, "away", last) as browser:
        await browser.until("ready")
        assert browser.shown == []


async def test_two_browsers_see_the_same(gateway: Served) -> None:
    async with page(gateway, "both") as one, page(gateway, "both") as two:
        await one.until("ready")
        await two.until("ready")
        await say(one, "hello")
        await two.until("message", text="re: hello")
        assert two.shown == ["hello", "re: hello"]


@pytest.mark.promise("P3")
async def test_a_message_that_is_sent_again_is_one(gateway: Served) -> None:
    async with page(gateway, "again") as browser:
        first = await say(browser, "hello")
    async with page(gateway, "again") as browser:
        again = await say(browser, "hello")
        assert (again["outcome"], again["input"]) == ("duplicate", first["input"])
        await browser.until("message", text="re: hello")
        assert len(await gateway.hf.inputs(session="agent:main:web:direct:owner:thread:again", limit=10)) == 1


async def test_what_another_process_has_put_there_is_shown_within_a_second(gateway: Served) -> None:
    async with page(gateway, "elsewhere") as browser, holdfast.open(Path(gateway.hf.state)) as other:
        await browser.until("ready")
        await other.store.put_mail("web", "d_other", "owner/elsewhere", "agent", "from another process")
        assert (await browser.until("message"))["text"] == "from another process"


async def test_older_messages_are_read_page_by_page(gateway: Served) -> None:
    texts = [str(number) for number in range(PAGE_MAIL + 10)]
    for text in texts:
        await gateway.hf.store.put_mail("web", f"d_long_{text}", "owner/long", "agent", text)
    async with page(gateway, "long") as browser:
        assert (await browser.until("ready"))["more"] is True
        assert browser.shown == texts[10:]
        first = next(frame["seq"] for frame in browser.frames if frame["type"] == "message")
        await browser.send(type="more", before=first)
        older = await browser.until("older")
        assert ([one["text"] for one in older["messages"]], older["more"]) == (texts[:10], False)


async def test_an_answer_is_shown_while_it_is_written_and_then_takes_its_place(tmp_path: Path) -> None:
    model = Halting(ANSWER)
    async with served(tmp_path, model=model) as there, page(there) as browser:
        await browser.until("ready")
        await say(browser, "hello")
        preview = await browser.until("preview")
        assert preview["text"].rstrip(" …") == BEGIN.rstrip()
        async with page(there) as late:
            assert (await late.until("preview"))["id"] == preview["id"], "whoever comes later sees it, too"
        model.may_go_on.set()
        answer = await browser.until("message", who="agent")
        assert (answer["id"], answer["text"]) == (preview["id"], ANSWER)
        async with page(there) as after:
            await after.until("ready")
            assert after.shown == ["hello", ANSWER]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"cookie": "holdfast_session=" + "A" * 43}, 401),
        ({"TOKEN": "", "origin": "http://evil.example"}, 403),
        ({"TOKEN": "", "origin": "null"}, 403),
        ({"TOKEN": "", "host": "evil.example"}, 421),
        ({"LOGIN": "", "origin": "http://localhost:3000"}, 403),
        ({"LOGIN": "", "origin": ""}, 403),
    ],
    ids=str,
)
async def test_a_socket_from_the_wrong_place_is_refused(gateway: Served, headers: dict[str, str], status: int) -> None:
    sent = dict(headers)
    if "TOKEN" in sent:
        sent = {**gateway.headers, **{name: value for name, value in sent.items() if name != "TOKEN"}}
    if "LOGIN" in sent:
        ours = await logged_in(gateway)
        sent = {"cookie": ours["cookie"], **({"origin": sent["origin"]} if sent["origin"] else {})}
    with pytest.raises(InvalidStatus) as refused:
        async with connect(gateway.url.replace("http:", "ws:") + "/api/chat", additional_headers=sent):
            pass
    assert refused.value.response.status_code == status
    assert refused.value.response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "frame",
    [
        "no json", "[]", '{"type": "shout"}', '{"type": "say", "id": "short", "text": "x"}',
        '{"type": "say", "id": "message-1", "text": " "}', '{"type": "say", "id": "message-1", "text": 1}',
        '{"type": "more", "before": -1}', '{"type": "more", "before": true}', '{"type": "hello"}', b"\x00",
        '{"type": "say", "id": "message-1", "text": "' + "x" * 32_001 + '"}', "[" * 5000,
    ],
    ids=lambda frame: str(frame)[:40],
)  # fmt: skip
async def test_a_bad_frame_ends_the_socket_and_harms_nothing(gateway: Served, frame: str | bytes) -> None:
    async with page(gateway, "bad") as browser:
        await browser.until("ready")
        await browser.socket.send(frame)
        assert await browser.closes() == 4400
    assert await gateway.hf.inputs(session="agent:main:web:direct:owner:thread:bad", limit=10) == []


async def test_a_socket_has_to_say_which_conversation_it_wants(gateway: Served) -> None:
    for name in ("", "Main", "a/b", "x" * 41):
        async with page(gateway, name) as browser:
            assert await browser.closes() == 4400


async def test_frames_that_come_too_fast_end_the_socket(gateway: Served) -> None:
    async with page(gateway, "fast") as browser:
        for number in range(FRAMES_MAX):
            await browser.send(type="more", before=number)
        assert await browser.closes() == 4429


async def test_a_login_that_is_over_ends_its_sockets(tmp_path: Path) -> None:
    clock = VirtualClock(datetime.now(UTC))
    async with served(tmp_path, clock=clock) as there:
        headers = await logged_in(there)
        async with page(there, headers=headers) as browser, page(there) as program:
            await browser.until("ready")
            await program.until("ready")
            await clock.advance(BEAT_S)
            await browser.until("beat")
            async with httpx.AsyncClient(base_url=there.url, headers=headers, timeout=60) as http:
                csrf = (await http.get("/api/login")).json()["csrf"]
                assert (await http.post("/logout", headers={"x-holdfast-csrf": csrf})).status_code == 303
            await clock.advance(BEAT_S)
            assert await browser.closes() == 4401
            await program.until("beat")


async def test_a_gateway_that_is_restarted_says_so(tmp_path: Path) -> None:
    async with served(tmp_path) as there, page(there) as browser:
        await browser.until("ready")
        await there.gateway.drain(0.0)
        assert await browser.closes() == 1012


async def test_the_gate_decides_here_as_everywhere(tmp_path: Path) -> None:
    config = Config.model_validate({"channels": {"web": {"dm": "closed"}}})
    async with served(tmp_path, config=config) as there, page(there) as browser:
        receipt = await say(browser, "hello")
        assert (receipt["outcome"], receipt["reason"]) == ("ignored", "dm_closed")


async def test_without_a_web_chat_there_is_no_page(tmp_path: Path) -> None:
    config = Config.model_validate({"channels": {"web": {"enabled": False}}})
    async with served(tmp_path, config=config) as there:
        async with httpx.AsyncClient(base_url=there.url, headers=there.headers, timeout=60) as http:
            assert (await http.get("/chat")).status_code == 404
        with pytest.raises(InvalidStatus):
            async with connect(there.url.replace("http:", "ws:") + "/api/chat", additional_headers=there.headers):
                pass


async def test_the_page_is_served_to_whoever_is_logged_in_and_takes_nothing_inline(gateway: Served) -> None:
    headers = await logged_in(gateway)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        assert (await http.get("/chat", headers={"accept": "text/html"})).headers["location"] == "/login?next=/chat"
        shown = await http.get("/chat", headers=headers)
        policy = shown.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert not re.search(r"<style|<script(?![^>]*src=)|\son\w+=|style=", shown.text)
        for path in re.findall(r'(?:href|src)="(/[^"]+)"', shown.text):
            assert (await http.get(path)).status_code == 200


async def test_no_script_of_ours_parses_text_as_html_or_code() -> None:
    risky = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|srcdoc")
    found = [path.name for path in FOLDER.iterdir() if risky.search(path.read_text(encoding="utf-8"))]
    assert (found, len(ASSETS)) == ([], 6)
