"""Connecting to MCP servers with pydantic-ai's toolset: programs over standard input and output, and HTTP.

Imported only when a server is first needed (`servers.py`): the libraries below it take seconds.

A program runs under the guard (`guard.py`): its input is its lifeline, which closes whenever the gateway ends, however
it does. What it writes to standard error is kept for the reason why it did not start, and shown to nobody else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastmcp.client.transports import StdioTransport
from fastmcp.exceptions import McpError
from mcp import types
from pydantic_ai.mcp import MCPToolset

from holdfast.errors import InputError, ResourceError
from holdfast.tool.offered import Offered, plain
from holdfast.tool.process import GUARD, Kept
from holdfast.tool.servers import WHY_CHARS_MAX, ServerSettings

if TYPE_CHECKING:
    from fastmcp.client import Client

LAST_WORDS_BYTES = 2048
SLACK_S = 15.0
"""The library's own limits are longer than ours by so much, so that ours, which have names, come first."""
CODES_ANSWERED = frozenset({-32700, -32600, -32601, -32602, -32603})
"""Errors of JSON-RPC itself: the server has answered, and refuses. Source: JSON-RPC 2.0, 5.1."""

# What goes wrong comes to us as an exception. Their lines hold texts of servers as they are, on handlers of their own.
for _name in ("fastmcp", "mcp"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class Connected:
    """A connection that is up (`servers.Session`)."""

    def __init__(self, client: Client[Any], wake: Callable[[], None]) -> None:
        self._client = client
        self._wake = wake
        self._ended = False
        self._changed = False

    def has_ended(self) -> bool:
        return self._ended

    def has_changed(self) -> bool:
        changed, self._changed = self._changed, False
        return changed

    def ends(self) -> None:
        self._ended = True
        self._wake()

    def changes(self) -> None:
        self._changed = True
        self._wake()

    async def list_tools(self) -> list[Offered]:
        found = await self._client.list_tools()
        return [Offered(one.name, one.description or "", one.input_schema) for one in found]

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        try:
            result = await self._client.call_tool_mcp(name, dict(arguments))
        except McpError as exc:
            if exc.error.code in CODES_ANSWERED:
                # Over HTTP the library says so, too, of a server that knows nothing of this connection any more.
                self.changes()
                raise InputError(plain(exc.error.message, WHY_CHARS_MAX)) from exc
            raise
        text = result_text(result)
        if result.is_error:
            raise InputError(text or "the server says that it failed, and not why")
        return text


@asynccontextmanager
async def connect(own: ServerSettings, wake: Callable[[], None]) -> AsyncIterator[Connected]:
    """Connect to a server. Leaving ends it, within some seconds.

    Raises:
        ResourceError: a program did not start, with its last words. Others: as the library has it.
    """
    connected: list[Connected] = []

    async def on_message(message: Any) -> None:
        if isinstance(getattr(message, "root", message), types.ToolListChangedNotification):
            for one in connected:
                one.changes()

    async with AsyncExitStack() as stack:
        if not own.argv:
            toolset = _toolset(own, own.url, on_message, headers=dict(own.headers))
            await stack.enter_async_context(toolset)
            connected.append(Connected(toolset.client, wake))
            yield connected[0]
            return
        words = await stack.enter_async_context(_last_words(lambda: [one.ends() for one in connected]))
        try:
            await asyncio.to_thread(os.makedirs, own.cwd, 0o700, exist_ok=True)
            toolset = _toolset(own, _program(own, words.stream), on_message)
            await stack.enter_async_context(toolset)
        except Exception as exc:
            said = await words.at_the_end()
            raise ResourceError(f"{exc}; it said: {said}" if said else str(exc)) from exc
        finally:
            words.close()
        connected.append(Connected(toolset.client, wake))
        if words.is_over:
            connected[0].ends()
        yield connected[0]


def _toolset(
    own: ServerSettings, place: str | StdioTransport, on_message: Any, headers: dict[str, str] | None = None
) -> MCPToolset[Any]:
    return MCPToolset[Any](
        place, id=own.name, headers=headers, message_handler=on_message, init_timeout=own.start_timeout_s + SLACK_S,
        read_timeout=own.timeout_s + SLACK_S,
    )  # fmt: skip


def _program(own: ServerSettings, errors: Any) -> StdioTransport:
    guarded = ["-I", "-S", str(GUARD), json.dumps(own.argv), "0", "serve"]
    return StdioTransport(
        sys.executable, guarded, env=dict(own.env), cwd=own.cwd, keep_alive=False, log_file=errors
    )  # fmt: skip


class _Words(asyncio.Protocol):
    """Standard error of a program: the end of it, and that nobody holds it any more."""

    def __init__(self, stream: Any, on_end: Callable[[], object]) -> None:
        self.stream = stream
        self.is_over = False
        self._kept = Kept(LAST_WORDS_BYTES)
        self._on_end = on_end
        self._over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._kept.add(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's name
        self.is_over = True
        self._over.set()
        self._on_end()

    def close(self) -> None:
        """Our own end, which the program has inherited by now, or never will."""
        if not self.stream.closed:
            self.stream.close()

    async def at_the_end(self) -> str:
        """What it said last, without waiting long for it."""
        self.close()
        try:
            async with asyncio.timeout(1.0):
                await self._over.wait()
        except TimeoutError:
            pass  # something of it still lives; what it has said so far is what there is
        lines = [line for line in self._kept.text.splitlines() if line.strip()]
        return plain(" / ".join(lines[-3:]), WHY_CHARS_MAX)


@asynccontextmanager
async def _last_words(on_end: Callable[[], object]) -> AsyncIterator[_Words]:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    transport, words = await asyncio.get_running_loop().connect_read_pipe(
        lambda: _Words(stream, on_end), os.fdopen(reader, "rb", buffering=0)
    )
    try:
        yield words
    finally:
        words.close()
        transport.close()


def result_text(result: types.CallToolResult) -> str:
    """A result as text. What is no text is named by its kind and size."""
    parts = [_part_text(part) for part in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False, default=str)
    return "\n".join(parts)


def _part_text(part: types.ContentBlock) -> str:
    if isinstance(part, types.TextContent):
        return part.text
    if isinstance(part, types.ImageContent | types.AudioContent):
        return _named(part.mime_type, part.data)
    if isinstance(part, types.ResourceLink):
        return f"[link: {part.uri}]"
    inner = part.resource
    return inner.text if isinstance(inner, types.TextResourceContents) else _named(inner.mime_type, inner.blob)


def _named(kind: str | None, data: str) -> str:
    """`data` is base64: three bytes for four characters."""
    return f"[{plain(kind or 'data', 100)}, {len(data.rstrip('=')) * 3 // 4} bytes, not shown]"
