"""A stand-in of Telegram's Bot API over real sockets, with faults on demand. Updates are told until they are
acknowledged by a question for later ones.
"""

from __future__ import annotations

import asyncio
import html
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from holdfast.channel.listening import Adapter
from holdfast.channel.telegram import TRAITS, TelegramApi, TelegramChannel
from holdfast.testing.channel import PATIENCE_S

TOKEN = "123456:test-token"
ENV = {"TELEGRAM_BOT_TOKEN": TOKEN}
ME = {"id": 1001, "is_bot": True, "first_name": "Holdfast", "username": "HoldfastBot"}


@dataclass(slots=True)
class Message:
    """One message as users see it now. `texts`: its texts, oldest first."""

    id: int
    chat: str
    topic: int | None
    texts: list[str]
    is_gone: bool = False

    @property
    def text(self) -> str:
        return self.texts[-1]


@dataclass(slots=True)
class Fault:
    """What happens to one call. done: what was asked for is done all the same."""

    status: int = 200
    body: dict[str, Any] = field(default_factory=dict)
    done: bool = False
    cut: bool = False


class TelegramStandIn:
    """One bot. `messages`: what it has sent. `calls`: methods, but for getUpdates. `acknowledged`: update ids."""

    def __init__(self) -> None:
        self.url = ""
        self.messages: list[Message] = []
        self.calls: list[str] = []
        self.signs: list[tuple[str, int, str]] = []
        self.typing: list[str] = []
        self.files: dict[str, bytes] = {}
        self.blocked: set[str] = set()
        self.acknowledged = 0
        self.polls = 0
        self._updates: list[dict[str, Any]] = []
        self.odd: list[Any] = []
        self._faults: dict[str, deque[Fault]] = {}
        self._changed = asyncio.Event()
        self._next = 100

    def table(self, **options: Any) -> dict[str, Any]:
        return {"api_url": self.url, **options}

    def refuse(self, method: str, status: int, description: str, **parameters: Any) -> None:
        body = {"ok": False, "error_code": status, "description": description, "parameters": parameters}
        self.fault(method, Fault(status, body))

    def fail(self, method: str, status: int, *, done: bool) -> None:
        self.fault(method, Fault(status, done=done))

    def lose_answer(self, method: str) -> None:
        self.fault(method, Fault(done=True, cut=True))

    def fault(self, method: str, fault: Fault) -> None:
        self._faults.setdefault(method, deque()).append(fault)

    def says(self, text: str, *, user: int = 2001, chat: int | None = None, times: int = 1, **more: Any) -> int:
        """Somebody says something; its update is told until it is acknowledged. Returns the message's id."""
        self._next += 1
        kind = "private" if chat is None else "supergroup"
        message: dict[str, Any] = {
            "message_id": self._next, "date": 1_700_000_000, "chat": {"id": chat or user, "type": kind},
            "from": {"id": user, "is_bot": False, "first_name": f"Name of {user}"}, "text": text, **more,
        }  # fmt: skip
        for _ in range(times):
            self._updates.append({"update_id": 500 + len(self._updates), "message": message})
        self._tell()
        return self._next

    def tells(self, update: Any) -> None:
        """An update as it is, whatever it is; told with the next one that can be acknowledged."""
        self.odd.append(update)

    def shown(self, chat: str = "2001", topic: int | None = None) -> list[str]:
        return [one.text for one in self.messages if (one.chat, one.topic, one.is_gone) == (chat, topic, False)]

    async def shows(self, text: str, *, chat: str = "2001", topic: int | None = None) -> None:
        await self.until(lambda: text in self.shown(chat, topic), f"{text!r} among {self.messages!r}")

    async def until(self, is_so: Callable[[], bool], what: str = "") -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}; called {self.calls[-20:]}") from None

    def _tell(self) -> None:
        self._changed.set()

    async def call(self, request: web.Request) -> web.StreamResponse:
        """One method."""
        method = request.match_info["method"]
        if request.match_info["token"] != TOKEN:
            return web.json_response({"ok": False, "error_code": 401, "description": "Unauthorized"}, status=401)
        given = await request.json()
        if method != "getUpdates":
            self.calls.append(method)
        faults = self._faults.get(method)
        fault = faults.popleft() if faults else Fault(done=True)
        told: Any = fault.body
        if fault.done:
            result = await self._updates_for(given) if method == "getUpdates" else getattr(self, f"_{method}")(given)
            told = {"ok": True, "result": result} if not isinstance(result, str) else _no(result)
        self._tell()
        if fault.cut:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault.status >= 500:
            return web.Response(status=fault.status, text="bad gateway")
        return web.json_response(told, status=max(fault.status, told.get("error_code", 0)))

    async def _updates_for(self, given: dict[str, Any]) -> list[Any]:
        self.polls += 1
        self.acknowledged = max(self.acknowledged, given.get("offset", 0))
        end = asyncio.get_running_loop().time() + given.get("timeout", 0)
        while True:
            fresh = [one for one in self._updates if one["update_id"] >= self.acknowledged]
            left_s = end - asyncio.get_running_loop().time()
            if fresh or left_s <= 0:
                return [*self.odd, *fresh] if fresh else []
            await asyncio.sleep(min(0.02, left_s))

    def _getMe(self, given: dict[str, Any]) -> Any:
        return ME

    def _sendMessage(self, given: dict[str, Any]) -> Any:
        wrong = self._wrong(given)
        if wrong:
            return wrong
        self._next += 1
        text = _shown(given)
        self.messages.append(Message(self._next, str(given["chat_id"]), given.get("message_thread_id"), [text]))
        return {"message_id": self._next}

    def _wrong(self, given: dict[str, Any]) -> str:
        if str(given["chat_id"]) in self.blocked:
            return "403 Forbidden: bot was blocked by the user"
        if given.get("parse_mode") == "HTML" and not _is_balanced(given["text"]):
            return "400 Bad Request: can't parse entities: unexpected end tag"
        return "400 Bad Request: message is too long" if len(_shown(given).encode("utf-16-le")) > 2 * 4096 else ""

    def _editMessageText(self, given: dict[str, Any]) -> Any:
        message = self._message(given)
        if message is None:
            return "400 Bad Request: message to edit not found"
        if _shown(given) == message.text:
            return "400 Bad Request: message is not modified"
        message.texts.append(_shown(given))
        return {"message_id": message.id}

    def _deleteMessage(self, given: dict[str, Any]) -> Any:
        message = self._message(given)
        if message is None:
            return "400 Bad Request: message to delete not found"
        message.is_gone = True
        return True

    def _setMessageReaction(self, given: dict[str, Any]) -> Any:
        self.signs.append((str(given["chat_id"]), given["message_id"], given["reaction"][0]["emoji"]))
        return True

    def _sendChatAction(self, given: dict[str, Any]) -> Any:
        self.typing.append(str(given["chat_id"]))
        return True

    def _getFile(self, given: dict[str, Any]) -> Any:
        return {"file_id": given["file_id"], "file_path": f"documents/{given['file_id']}"}

    def _message(self, given: dict[str, Any]) -> Message | None:
        for one in self.messages:
            if (one.chat, one.id, one.is_gone) == (str(given["chat_id"]), given["message_id"], False):
                return one
        return None

    async def file(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.files[request.match_info["name"]])


def _no(words: str) -> dict[str, Any]:
    status, _, description = words.partition(" ")
    return {"ok": False, "error_code": int(status), "description": description}


def _shown(given: dict[str, Any]) -> str:
    text = given["text"]
    return html.unescape(re.sub(r"<[^>]*>", "", text)) if given.get("parse_mode") == "HTML" else text


def _is_balanced(text: str) -> bool:
    """Whether tags close in order, as Telegram demands."""
    stack: list[str] = []
    for tag in re.finditer(r"<(/?)(\w+)[^>]*>", text):
        if not tag[1]:
            stack.append(tag[2])
        elif not stack or stack.pop() != tag[2]:
            return False
    return not stack


@asynccontextmanager
async def telegram_stand_in() -> AsyncIterator[TelegramStandIn]:
    """Serve it on a free port of loopback until left."""
    telegram = TelegramStandIn()
    app = web.Application()
    app.router.add_post("/bot{token}/{method}", telegram.call)
    app.router.add_get("/file/bot{token}/documents/{name}", telegram.file)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    telegram.url = f"http://{host}:{port}"
    try:
        yield telegram
    finally:
        await runner.cleanup()


def quick_adapter(telegram: TelegramStandIn) -> Adapter:
    """The adapter, whose sends are cut off, and made again, after a second."""
    api = TelegramApi(TOKEN, telegram.url, {})
    channel = TelegramChannel("telegram", api, traits=replace(TRAITS, longest_request_s=1.0), poll_s=1)
    return Adapter(channel, listener=channel, editor=channel, typing=channel, reactions=channel, close=api.close)
