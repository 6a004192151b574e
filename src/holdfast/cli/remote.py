"""A running gateway, asked over HTTP by a command of the same machine. Standard library only: that starts quickly."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from holdfast.cli.exit_codes import TryAgainError
from holdfast.errors import HoldfastError, InputError

PROBE_S = 2.0
"""Longest wait for a sign of a gateway. A slower one is no loss: the state can be used without it."""
WAIT_S_MAX = 600.0
"""Longest wait the gateway grants one request."""
SLACK_S = 30.0
POLL_S = 1.0
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what others listen on, and where we find them


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be said. `key` names it for dedupe, so that it can be sent again when its fate is unknown."""

    session: str
    text: str
    key: str
    lane: str = "main"
    model: str | None = None
    route: str | None = None


class GatewayGoneError(Exception):
    """The connection broke, or the gateway takes no more input: what became of the message is not known here."""


class GatewayRefusedError(HoldfastError):
    """The gateway said no, in its own words."""


OnEvent = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that answered for our store."""

    host: str
    port: int
    token: str = field(repr=False)

    def ask(self, message: Message, *, wait: bool, until_mono: float) -> dict[str, Any]:
        """Say it, and wait for the end of its input.

        Returns:
            the input as JSON; with `wait` false, or past `until_mono`, as it is then.

        Raises:
            GatewayGoneError: ask again, with the same key, whoever answers for the state then.
            GatewayRefusedError, TryAgainError, InputError: nothing was stored.
        """
        left_s = until_mono - time.monotonic()
        timeout_s = max(1.0, min(left_s, WAIT_S_MAX))
        query = f"?wait=1&timeout={timeout_s:.3f}" if wait else ""
        status, body = self._call("POST", _messages(message) + query, message, timeout_s=timeout_s + SLACK_S)
        if status == 409 and _error(body).get("code") == "still_running":
            return self._poll(_error(body)["input_id"], until_mono)
        return _checked(status, body)

    def ask_watching(self, message: Message, on_event: OnEvent, *, until_mono: float) -> dict[str, Any]:
        """The same, telling what happens meanwhile: kinds and data of `turn/events.py`."""
        watching = self._connect(PROBE_S + SLACK_S)
        with closing(watching):
            try:
                watching.request(
                    "GET", f"/api/events?session={quote(message.session, safe='')}", headers=self._headers()
                )
                events = watching.getresponse()
                stored = self.ask(message, wait=False, until_mono=until_mono)
                for event in _events(events):
                    if event is not None and event.get("input_id") == stored["id"]:
                        on_event(event["kind"], event.get("data") or {})
                    if event is None or event["kind"] in ("turn.settled", "dropped"):
                        shown = self.input(stored["id"])
                        if shown["settled"] or time.monotonic() >= until_mono:
                            return shown
            except (OSError, http.client.HTTPException) as broken:
                raise GatewayGoneError(str(broken)) from broken
        raise GatewayGoneError("the event stream ended")

    def input(self, input_id: str) -> dict[str, Any]:
        """The input as it is. Raises as `ask`."""
        return _checked(*self._call("GET", f"/api/inputs/{quote(input_id, safe='')}", timeout_s=SLACK_S))

    def reload_config(self) -> dict[str, Any]:
        """Have it read its configuration again. Returns: the report. Raises GatewayGoneError, GatewayRefusedError."""
        status, body = self._call("POST", "/api/config/reload", timeout_s=WAIT_S_MAX)
        return body if status == 409 and isinstance(body, dict) and "faults" in body else _checked(status, body)

    def waiting_config(self) -> list[str]:
        """Keys of the configuration that it has read and not taken; none where it does not say."""
        try:
            status, body = self._call("GET", "/api/config", timeout_s=SLACK_S)
        except GatewayGoneError:
            return []
        return [str(key) for key in body.get("waiting", ())] if status == 200 and isinstance(body, dict) else []

    def _poll(self, input_id: str, until_mono: float) -> dict[str, Any]:
        while True:
            shown = self.input(input_id)
            left_s = until_mono - time.monotonic()
            if shown["settled"] or left_s <= 0:
                return shown
            time.sleep(min(POLL_S, left_s))

    def _call(self, method: str, path: str, message: Message | None = None, *, timeout_s: float) -> tuple[int, Any]:
        """One request. Raises GatewayGoneError."""
        headers = self._headers()
        content = None
        if message is not None:
            headers |= {"Content-Type": "application/json", "Idempotency-Key": message.key}
            said = {"text": message.text, "lane": message.lane, "model": message.model, "route": message.route}
            content = json.dumps(said).encode()
        with closing(self._connect(timeout_s)) as connection:
            try:
                connection.request(method, path, content, headers)
                response = connection.getresponse()
                return response.status, json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as broken:
                raise GatewayGoneError(str(broken)) from broken

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "User-Agent": "holdfast-cli"}


def find_gateway(state: Path, token_file: Path) -> Gateway | None:
    """The gateway of this folder, if one is running: it must answer, and for the same store.

    What `gateway.json` says is only a hint; it may be left over from a gateway that was killed, and its port may belong
    to another program by now.
    """
    try:
        named = json.loads((state / "gateway.json").read_text())
        own = state / "holdfast.json"  # not there where the state is a database
        store_id = json.loads(own.read_text())["store"] if own.exists() else named["store_id"]
        token = token_file.read_text().strip()
        host, port = str(named["host"]), int(named["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no gateway was started here, or it is being started just now
    host = EVERY_ADDRESS.get(host, host)
    with closing(http.client.HTTPConnection(host, port, timeout=PROBE_S)) as connection:
        try:
            connection.request("GET", "/healthz")
            health = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
    is_ours = isinstance(health, dict) and health.get("store_id") == store_id
    return Gateway(host, port, token) if is_ours else None


def _messages(message: Message) -> str:
    return f"/api/sessions/{quote(message.session, safe='')}/messages"


def _events(stream: http.client.HTTPResponse) -> Iterator[dict[str, Any] | None]:
    """Server-sent events as dicts; None for a comment, which says that the gateway is still there."""
    if stream.status != 200:
        raise http.client.HTTPException(f"status {stream.status}")
    for line in stream:
        if line.startswith(b"data:"):
            yield json.loads(line[5:])
        elif line.startswith(b":"):
            yield None


def _checked(status: int, body: Any) -> dict[str, Any]:
    """The body of a good answer.

    Raises:
        InputError: the message was wrong. TryAgainError: 429. GatewayGoneError: it drains. GatewayRefusedError: else.
    """
    if status < 300:
        return body
    error = _error(body)
    text = str(error.get("message") or f"the gateway answered with status {status}")
    if status == 503 and error.get("code") == "draining":
        raise GatewayGoneError(text)
    if status == 429:
        raise TryAgainError(text)
    raise InputError(text) if status in (400, 404, 409, 413) else GatewayRefusedError(text)


def _error(body: Any) -> dict[str, Any]:
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}
