"""The web chat: `/chat`, its page, and `/api/chat`, the socket behind it. The protocol is in `docs/web-chat.md`.

A browser says which message it has seen last and is sent everything after it, then what comes, in order; so one that
was away misses nothing and gets nothing twice. A message that it sends is stored before it hears so. Guard has looked
at its name, its page and its cookie; the cookie is looked at again while it stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import HTMLResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from holdfast.channel.listening import Hear
from holdfast.channel.web import Watcher, WebChat
from holdfast.channel.web_words import (
    Hello,
    More,
    Say,
    conversation_of,
    heard_of,
    mail_id_of,
    named_by,
    read_frame,
    shown,
    target_of,
)
from holdfast.clock import epoch_ms
from holdfast.errors import HoldfastError, InputError
from holdfast.gateway.assets import FOLDER, PAGE_HEADERS
from holdfast.gateway.body import decode
from holdfast.gateway.login import LoggedIn, Logins
from holdfast.gateway.recent import Recent
from holdfast.gateway.replies import Refusal
from holdfast.gateway.tokens import check
from holdfast.inbound.commands import read_command
from holdfast.inbound.scope import Scope, of_command
from holdfast.kernel import Holdfast
from holdfast.lane.queue import USER_LANE
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from fastapi import FastAPI

SOCKETS_MAX = 64
HELLO_S = 10.0
LOOK_S = 1.0
"""Other processes' messages are looked for this often."""
BEAT_S = 15.0
"""A browser hears something at least this often, and gives a silent socket up after 40 s."""
SEND_S = 30.0
"""Who reads nothing for so long is let go."""
FRAMES_MAX, FRAMES_S = 30, 10.0
PAGE_MAIL = 50
CONVERSATIONS_MAX = 50
BAD_FRAME, LOGGED_OUT, NO_HELLO, TOO_MANY, FAILED, RESTARTING = 4400, 4401, 4408, 4429, 1011, 1012
log = logging.getLogger("holdfast.channels.web")


class WebChatApi:
    """The page and the socket. One per application. `hear`: what messages are handed to."""

    def __init__(self, hf: Holdfast, chat: WebChat, hear: Hear, logins: Logins, closing: asyncio.Event) -> None:
        self._hf = hf
        self._chat = chat
        self._hear = hear
        self._logins = logins
        self._closing = closing
        self._sockets = 0

    def add_to(self, app: FastAPI) -> None:
        page = HTMLResponse((FOLDER / "chat.html").read_text(encoding="utf-8"), headers=PAGE_HEADERS)

        async def chat_page() -> Response:
            return page

        app.add_api_route("/chat", chat_page, methods=["GET"], include_in_schema=False)
        app.add_api_websocket_route("/api/chat", self.serve)

    async def serve(self, socket: WebSocket) -> None:
        """One browser, until it leaves or is sent away."""
        if self._sockets >= SOCKETS_MAX:
            full = Refusal(429, f"{SOCKETS_MAX} sockets are open; close a page", "rate_limit_error", "too_many_sockets")
            await full.response()(socket.scope, socket.receive, socket.send)
            return
        self._sockets += 1
        try:
            await socket.accept()
            await _Talk(self._hf, self._chat, self._hear, self._logins, self._closing, socket).run()
        except (WebSocketDisconnect, RuntimeError, TimeoutError) as exc:  # it has gone, or reads no more
            log.debug("a browser has left: %s", type(exc).__name__)
        finally:
            self._sockets -= 1


class _LetGo(Exception):  # noqa: N818  # an end, not a fault
    """The socket is to be closed. Browsers read the code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class _Talk:
    """One socket that is open."""

    def __init__(
        self, hf: Holdfast, chat: WebChat, hear: Hear, logins: Logins, closing: asyncio.Event, socket: WebSocket
    ) -> None:
        self._hf = hf
        self._chat = chat
        self._hear = hear
        self._logins = logins
        self._closing = closing
        self._socket = socket
        self._login: LoggedIn | None = getattr(socket.state, "login", None)
        self._scopes: frozenset[Scope] = socket.state.scopes
        self._sending = asyncio.Lock()
        self._frames = Recent(FRAMES_MAX, FRAMES_S)
        self._conversation = ""
        self._target = ""

    async def run(self) -> None:
        """Raises WebSocketDisconnect, TimeoutError: the browser has gone."""
        tasks: list[asyncio.Task[None]] = []
        try:
            hello = await self._hello()
            self._conversation, self._target = hello.conversation, target_of(hello.conversation)
            with self._chat.watch(self._target) as watcher:
                await self._welcome()
                tasks = [
                    asyncio.create_task(self._listen(), name="web chat: hear"),
                    asyncio.create_task(self._tell(watcher, hello.after), name="web chat: tell"),
                    asyncio.create_task(self._stay(), name="web chat: stay"),
                ]
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        except _LetGo as end:
            await self._close(end.code, str(end))
        except HoldfastError as exc:
            log.error("channel %s: a browser could not be served: %s", self._chat.name, exc)
            await self._close(FAILED, "the gateway's store failed")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self, code: int, why: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(SEND_S):
                    await self._socket.close(code, why[:100])

    # ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _hello(self) -> Hello:
        try:
            async with asyncio.timeout(HELLO_S):
                frame = await self._frame()
        except TimeoutError:
            raise _LetGo(NO_HELLO, "nothing was said") from None
        if not isinstance(frame, Hello):
            raise _LetGo(BAD_FRAME, "the first frame must be hello")
        return frame

    async def _frame(self) -> Hello | Say | More:
        """The next one. Raises _LetGo: it is none, or they come too fast."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        now = self._hf.clock.mono()
        if self._frames.is_full("", now):
            raise _LetGo(TOO_MANY, f"more than {FRAMES_MAX} frames in {FRAMES_S:g} s")
        self._frames.add("", now)
        text = message.get("text")
        if text is None:
            raise _LetGo(BAD_FRAME, "frames must be text")
        try:
            return read_frame(decode(text.encode("utf-8", "replace")))
        except InputError as exc:
            raise _LetGo(BAD_FRAME, str(exc)) from None
        except Refusal as refusal:
            raise _LetGo(BAD_FRAME, refusal.message) from None

    async def _listen(self) -> None:
        """One after another, so that messages keep their order."""
        while True:
            match await self._frame():
                case Hello():
                    raise _LetGo(BAD_FRAME, "hello was said before; open another socket")
                case Say() as say:
                    await self._take(say)
                case More(before):
                    older = await self._hf.store.mail(self._chat.name, self._target, before=before, limit=PAGE_MAIL + 1)
                    told = [shown(one) for one in older[-PAGE_MAIL:]]
                    await self._send({"type": "older", "messages": told, "more": len(older) > PAGE_MAIL})

    async def _take(self, say: Say) -> None:
        """Hand it over; what was taken is shown to every browser. The receipt comes when both are durable."""
        receipt: dict[str, Any] = {"type": "receipt", "id": say.id}
        try:
            check(self._scopes, of_command(read_command(USER_LANE, {"content": say.text})))
            heard = await self._hear(heard_of(say, self._conversation, epoch_ms(self._hf.clock.now())))
            if heard.outcome in ("taken", "duplicate"):
                mail_id = mail_id_of(say, self._conversation)
                await self._hf.store.put_mail(self._chat.name, mail_id, self._target, "user", say.text)
                self._chat.wake(self._target)
            receipt |= {"outcome": heard.outcome, "input": heard.input_id, "reason": heard.reason}
        except Refusal as refusal:  # its token may not say that
            receipt |= {"outcome": "refused", "input": None, "reason": refusal.message}
        except HoldfastError as exc:  # not stored: the browser sends it again
            log.warning("channel %s: a message was not taken: %s", self._chat.name, on_one_line(str(exc)))
            receipt |= {"outcome": "failed", "input": None, "reason": str(exc)[:300]}
        await self._send(receipt)

    # ── what it is told ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _welcome(self) -> None:
        targets = [target for target, _ in await self._hf.store.mail_targets(self._chat.name, CONVERSATIONS_MAX)]
        known = [name for target in targets if (name := named_by(target)) is not None]
        conversations = list(dict.fromkeys([*known, conversation_of(self._conversation)]))
        await self._send({"type": "welcome", "conversation": self._conversation, "conversations": conversations})

    async def _tell(self, watcher: Watcher, after: int | None) -> None:
        """Messages after one that the browser has, then what comes."""
        store, name, sent_previews, typed = self._hf.store, self._chat.name, dict[str, str](), 0
        is_first, seq, more = True, after, False
        while True:
            watcher.changed.clear()
            if seq is None:
                newest = await store.mail(name, self._target, limit=PAGE_MAIL + 1)
                more, found, seq = len(newest) > PAGE_MAIL, newest[-PAGE_MAIL:], 0
            else:
                found = await store.mail(name, self._target, after=seq, limit=PAGE_MAIL)
            for mail in found:
                await self._send(shown(mail))
                seq = mail.seq
                sent_previews.pop(mail.id, None)
                self._chat.arrived(self._target, mail.id)
            if found and not (is_first and after is None):
                continue  # there may be more
            if is_first:
                is_first = False
                await self._send({"type": "ready", "more": more})
            await self._tell_previews(sent_previews)
            if self._chat.typed(self._target) != typed:
                typed = self._chat.typed(self._target)
                await self._send({"type": "typing", "for_s": self._chat.typing_lasts_s})
            await self._pause(watcher.changed.wait, LOOK_S)

    async def _tell_previews(self, sent: dict[str, str]) -> None:
        now = self._chat.previews(self._target)
        for key in [key for key in sent if key not in now]:
            del sent[key]
            await self._send({"type": "gone", "id": key})
        for key, text in now.items():
            if sent.get(key) != text:
                sent[key] = text
                await self._send({"type": "preview", "id": key, "text": text})

    async def _stay(self) -> None:
        """Beats, until the gateway closes or the login is over."""
        while True:
            await self._pause(self._closing.wait, BEAT_S)
            if self._closing.is_set():
                raise _LetGo(RESTARTING, "the gateway is being restarted")
            if self._login is not None and not await self._logins.holds(self._login.digest):
                raise _LetGo(LOGGED_OUT, "this login is over")
            await self._send({"type": "beat"})

    async def _send(self, frame: dict[str, Any]) -> None:
        """Raises TimeoutError: it reads nothing."""
        async with self._sending, asyncio.timeout(SEND_S):
            await self._socket.send_text(msgspec.json.encode(frame).decode())

    async def _pause(self, until: Callable[[], Any], seconds: float) -> None:
        waiting = asyncio.ensure_future(until())
        alarm = asyncio.ensure_future(self._hf.clock.sleep(seconds))
        try:
            await asyncio.wait({waiting, alarm}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            alarm.cancel()
