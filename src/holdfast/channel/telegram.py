"""Telegram: the Bot API, over plain requests; messages by long polling (`docs/telegram.md`).

Telegram takes no key with a message and tells nobody afterwards what was sent: what may have arrived goes out again
with a label. Updates are acknowledged by asking for later ones, which happens when they are stored.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import httpx

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.channel.listening import Adapter, Attachment, Hear, Setup
from holdfast.channel.signs import sign_of
from holdfast.channel.telegram_events import Me, Place, heard_of, place_of, to_html
from holdfast.errors import ChannelError, ChannelRefusedError, InputError, SendUnknownError
from holdfast.text import on_one_line

TELEGRAM_URL = "https://api.telegram.org"
TEXT_MAX = 3800
"""Telegram takes 4,096 of UTF-16, as shown."""
TRAITS = ChannelTraits(longest_request_s=25.0, text_max=TEXT_MAX, counts_utf16=True)
REQUEST_S = 10.0
POLL_S = 25
"""How long Telegram keeps a question for updates when there are none."""
PERMANENT = frozenset({400, 401, 403, 404})
log = logging.getLogger("holdfast.channels.telegram")


def make(setup: Setup) -> Adapter:
    """The adapter of `[channels.NAME.telegram]`.

    Raises:
        InputError: a secret is missing.
    """
    api = TelegramApi(setup.secret("token_env"), setup.options.get("api_url"), setup.env)
    channel = TelegramChannel(setup.name, api)
    return Adapter(channel, listener=channel, editor=channel, typing=channel, reactions=channel, close=api.close)


class TelegramRefusedError(ChannelRefusedError):
    """Telegram has said no; `why` in its own words."""

    def __init__(self, message: str, *, permanent: bool, retry_after_s: float | None, why: str) -> None:
        super().__init__(message, permanent=permanent, retry_after_s=retry_after_s)
        self.why = why


class TelegramApi:
    """Calls methods with one token. Opens no connection before the first call; `close` ends all.

    The token stands in addresses, so no address reaches a log line: not ours, and not those of httpx.
    """

    def __init__(self, token: str, url: str | None, env: Mapping[str, str]) -> None:
        self._base = (url or TELEGRAM_URL).rstrip("/")
        self._token = token
        self._proxy = env.get("HTTPS_PROXY") or env.get("https_proxy") if self._base.startswith("https:") else None
        self._client: httpx.AsyncClient | None = None
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)

    async def call(self, method: str, *, wait_s: float = 0.0, **arguments: Any) -> Any:
        """One request, once; its result.

        Args:
            wait_s: how much longer than usual it may take.

        Raises:
            ChannelRefusedError: it was not done. SendUnknownError: nobody knows.

        Cancelled: the connection is closed; whether it was done is unknown.
        """
        given = {name: value for name, value in arguments.items() if value not in (None, "")}
        try:
            answer = await self._open().post(
                f"{self._base}/bot{self._token}/{method}", json=given, timeout=REQUEST_S + wait_s
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:  # nothing has gone out
            raise ChannelRefusedError(f"no connection to Telegram: {type(exc).__name__}") from None
        except httpx.HTTPError as exc:
            raise SendUnknownError(f"the connection to Telegram broke in {method}: {type(exc).__name__}") from None
        return _result_of(method, answer)

    async def download(self, file_id: str, bytes_max: int) -> bytes:
        """A file of a message. Raises ChannelError: it is larger, or cannot be had."""
        path = str((await self.call("getFile", file_id=file_id) or {}).get("file_path", ""))
        content = bytearray()
        try:
            async with self._open().stream("GET", f"{self._base}/file/bot{self._token}/{path}") as answer:
                if answer.status_code != 200:
                    raise ChannelError(f"Telegram gave no file (status {answer.status_code})")
                async for chunk in answer.aiter_bytes(65_536):
                    content += chunk
                    if len(content) > bytes_max:
                        raise ChannelError(f"the file is larger than {bytes_max} bytes")
        except httpx.HTTPError as exc:
            raise ChannelError(f"Telegram gave no file: {type(exc).__name__}") from None
        return bytes(content)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=REQUEST_S, proxy=self._proxy, trust_env=False)
        return self._client


def _result_of(method: str, answer: httpx.Response) -> Any:
    """What an answer says. Raises as `call`."""
    try:
        told = json.loads(answer.content)
    except (ValueError, RecursionError):
        told = None
    told = told if isinstance(told, dict) else {}
    if answer.status_code == 200 and told.get("ok") is True:
        return told.get("result")
    why = on_one_line(str(told.get("description", "")))[:200]
    words = f"{method}: {answer.status_code} {why}".rstrip()
    if answer.status_code >= 500 or answer.status_code < 400 or not told:
        raise SendUnknownError(words)
    parameters = told.get("parameters")
    after_s = parameters.get("retry_after") if isinstance(parameters, dict) else None
    raise TelegramRefusedError(
        words,
        permanent=answer.status_code in PERMANENT or (answer.status_code == 409 and "webhook" in why),
        retry_after_s=float(after_s) if isinstance(after_s, int | float) else None,
        why=why,
    )


class TelegramChannel:
    """One bot."""

    edit_every_s = 1.5
    """About a message a second in one chat, and twenty a minute in a group, which answers 429 beyond that."""
    typing_lasts_s = 5.0

    def __init__(self, name: str, api: TelegramApi, *, traits: ChannelTraits = TRAITS, poll_s: int = POLL_S) -> None:
        self.name = name
        self.traits = traits
        self._api = api
        self._poll_s = poll_s
        self._me: Me | None = None
        self._connected = False

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, request: SendRequest) -> Sent:
        place = place_of(request.target)
        told = await self._put("sendMessage", request, **_where(place))
        return Sent(f"{place.chat}:{(told or {}).get('message_id', '')}")

    async def find(self, delivery_id: str, target: str) -> Sent | None:  # noqa: ARG002  # the contract's shape
        raise SendUnknownError("Telegram does not tell a bot what it has sent")

    async def edit(self, reference: str, request: SendRequest) -> Sent:
        chat, _, message = reference.partition(":")
        try:
            await self._put("editMessageText", request, chat_id=chat, message_id=_number(message))
        except TelegramRefusedError as refused:
            if "message is not modified" not in refused.why:
                raise
        return Sent(reference)

    async def _put(self, method: str, request: SendRequest, **where: Any) -> Any:
        """As HTML; what Telegram cannot read as that, and so has not taken, as it is."""
        text, quiet = request.labelled_text, {"is_disabled": True}
        try:
            return await self._api.call(
                method, **where, text=to_html(text), parse_mode="HTML", link_preview_options=quiet
            )
        except TelegramRefusedError as refused:
            if "can't parse entities" not in refused.why:
                raise
        return await self._api.call(method, **where, text=text, link_preview_options=quiet)

    async def remove(self, reference: str, target: str) -> None:  # noqa: ARG002  # the contract's shape
        chat, _, message = reference.partition(":")
        try:
            await self._api.call("deleteMessage", chat_id=chat, message_id=_number(message))
        except TelegramRefusedError as refused:
            if "message to delete not found" not in refused.why:
                raise

    async def react(self, target: str, message_id: str, sign: str) -> None:  # noqa: ARG002  # the contract's shape
        chat, _, message = message_id.partition(":")
        signs = [{"type": "emoji", "emoji": sign_of(sign)}]
        await self._api.call("setMessageReaction", chat_id=chat, message_id=_number(message), reaction=signs)

    async def show_typing(self, target: str) -> None:
        await self._api.call("sendChatAction", **_where(place_of(target)), action="typing")

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def connected(self) -> bool:
        return self._connected

    async def listen(self, hear: Hear) -> None:
        """Ask for updates until that fails (ChannelRefusedError, SendUnknownError), or one cannot be stored."""
        try:
            me = await self._who_we_are()
            after: int | None = None
            while True:
                wait_s = self._poll_s if self._connected else 0
                updates = await self._api.call(
                    "getUpdates", wait_s=wait_s, offset=after, timeout=wait_s, allowed_updates=["message"]
                )
                self._connected = True
                for update in updates if isinstance(updates, list) else []:
                    number = update.get("update_id") if isinstance(update, dict) else None
                    if not isinstance(number, int):
                        log.warning("channel %s: an update without a number was left out", self.name)
                        continue
                    await self._take(update, me, hear)
                    after = number + 1
        finally:
            self._connected = False

    async def _take(self, update: Mapping[str, Any], me: Me, hear: Hear) -> None:
        heard = heard_of(update, me, self._attachment)
        if heard is None:
            return
        try:
            await hear(heard)
        except InputError as exc:
            log.warning("channel %s: something that was said was not taken: %s", self.name, on_one_line(str(exc)))

    async def _who_we_are(self) -> Me:
        if self._me is None:
            told = await self._api.call("getMe")
            self._me = Me(str(told.get("id", "")), str(told.get("username", "")))
        return self._me

    def _attachment(self, file: Mapping[str, Any], media_type: str) -> Attachment:
        size = file.get("file_size")

        async def fetch(bytes_max: int) -> bytes:
            return await self._api.download(str(file.get("file_id", "")), bytes_max)

        return Attachment(
            str(file.get("file_name") or "file"),
            str(file.get("mime_type") or media_type),
            size if isinstance(size, int) else None,
            fetch,
        )


def _where(place: Place) -> dict[str, Any]:
    return {"chat_id": place.chat, "message_thread_id": _number(place.topic) if place.topic else None}


def _number(name: str) -> int:
    if not (name.isascii() and name.isdigit() and len(name) < 21):
        raise ChannelRefusedError(f"{name[:40]!r} is no number of Telegram's", permanent=True)
    return int(name)
