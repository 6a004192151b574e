"""A model provider on loopback that speaks real wire formats and misbehaves on demand.

    async with ProviderStub() as stub:
        stub.play(Scene(wire.openai("Hello")), Scene(wire.openai("Hel", finish=None), end="cut"))
        client = AsyncOpenAI(base_url=stub.url, api_key="any")

Each request is answered by the next scene, once they are used up by what `otherwise` says. `wire.py` writes the bodies
of answers, `mishaps.py` scenes of what can go wrong, for each interface. What came in is in `stub.requests`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any


@dataclass(frozen=True, slots=True)
class Scene:
    """How one request is answered.

    Args:
        chunks: pieces of the body, each sent as one HTTP chunk.
        status, content_type, headers: of the response.
        end: "close" ends the body properly; "cut" drops the connection in the middle of it; "stall" says nothing more.
        silent: read the request and never answer at all.
        paced: wait for a `ProviderStub.tick` before each chunk, so that a test decides how long an answer takes.
    """

    chunks: Sequence[bytes] = ()
    status: int = 200
    content_type: str = "text/event-stream"
    headers: dict[str, str] = field(default_factory=dict)
    end: str = "close"
    silent: bool = False
    paced: bool = False


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request as it came in; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    method: str = "POST"


class ProviderStub:
    """An HTTP/1.1 server on a free loopback port, for use as an async context manager.

    Args:
        otherwise: makes the answer to a request for which there is no scene; None: a server error.
    """

    def __init__(self, otherwise: Callable[[SeenRequest], Scene] | None = None) -> None:
        self._otherwise = otherwise or (lambda _: _OUT_OF_SCENES)
        self.requests: list[SeenRequest] = []
        self._scenes: deque[Scene] = deque()
        self._server: asyncio.Server | None = None
        self._over = asyncio.Event()
        self._arrived = asyncio.Condition()
        self._gone = asyncio.Event()
        self._ticks = asyncio.Semaphore(0)

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        assert self._server is not None, "enter the stub first"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def play(self, *scenes: Scene) -> None:
        """Append scenes."""
        self._scenes.extend(scenes)

    async def asked(self, count: int = 1) -> SeenRequest:
        """Wait until `count` requests in all have come in; returns the last of them."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def client_gone(self) -> None:
        """Wait until a client has closed a connection while a scene was going on."""
        await self._gone.wait()

    def tick(self, chunks: int = 1) -> None:
        """Let a paced scene send so many chunks more."""
        for _ in range(chunks):
            self._ticks.release()

    async def __aenter__(self) -> ProviderStub:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read_request(reader)
            if request is None:
                return
            self.requests.append(request)
            async with self._arrived:
                self._arrived.notify_all()
            scene = self._scenes.popleft() if self._scenes else self._otherwise(request)
            await self._play_one(scene, reader, writer)
        except ConnectionError:
            self._gone.set()  # the client left in the middle, which is its right
        finally:
            writer.close()

    async def _play_one(self, scene: Scene, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if scene.silent:
            await self._wait_for_client_to_leave(reader)
            return
        head = {
            "Content-Type": scene.content_type,
            "Transfer-Encoding": "chunked",
            "Connection": "close",
            **scene.headers,
        }
        lines = [f"HTTP/1.1 {scene.status} Stub", *(f"{name}: {value}" for name, value in head.items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        await writer.drain()
        for chunk in scene.chunks:
            if scene.paced and not await self._ticked(reader):
                return
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await writer.drain()
        if scene.end == "cut":
            return  # closing without the last chunk is a broken body
        if scene.end == "stall":
            await self._wait_for_client_to_leave(reader)
            return
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _ticked(self, reader: asyncio.StreamReader) -> bool:
        """Wait for the next tick; False if the client has left or the stub is closed before it comes."""
        if self._ticks.locked():
            ticking = asyncio.ensure_future(self._ticks.acquire())
            await self._wait_for_client_to_leave(reader, unless=ticking)
            return ticking.done() and not ticking.cancelled()
        await self._ticks.acquire()
        return True

    async def _wait_for_client_to_leave(
        self, reader: asyncio.StreamReader, *, unless: asyncio.Future[Any] | None = None
    ) -> None:
        """Return when the client has closed its side, the stub is closed, or `unless` is done; that is then whole."""
        leaving = asyncio.ensure_future(reader.read(1))
        over = asyncio.ensure_future(self._over.wait())
        waited: set[asyncio.Future[Any]] = {leaving, over} if unless is None else {leaving, over, unless}
        done, pending = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(leaving, *pending, return_exceptions=True)  # a reset connection is a client that has left
        if leaving in done:
            self._gone.set()


def json_scene(body: Any, status: int, **headers: str) -> Scene:
    """A plain JSON answer, such as an error."""
    return Scene([json.dumps(body).encode()], status=status, content_type="application/json", headers=headers)


_OUT_OF_SCENES = json_scene({"error": {"message": "the stub has no scene for this request"}}, 500)


async def _read_request(reader: asyncio.StreamReader) -> SeenRequest | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None  # connected and left
    line, *rest = head.rstrip("\r\n").split("\r\n")
    pairs = (header.split(":", 1) for header in rest)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    method, path, _ = line.split(" ", 2)
    return SeenRequest(path, headers, json.loads(raw) if raw else {}, method)
