"""A forwarding proxy for TCP: the place where a test cuts a network.

    with TcpProxy(("127.0.0.1", 5432)) as proxy:        # or the path of a Unix socket
        ... connect to 127.0.0.1:proxy.port ...
        proxy.cut()                                     # nothing gets through, both ways
        proxy.heal()

It runs on a thread of its own, so that it forwards while the test's own loop stands still. What it holds back while the
network is cut is delivered when it heals, as TCP would by sending it again, unless one end has given the connection up
meanwhile: the kernel on the far side of a real cut does that by keep-alives, which here only reach the proxy. So after
`server_patience_s` the proxy ends the server's side in its place, and the client's is left hanging.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Self

CHUNK = 65_536
LOOPBACK = "127.0.0.1"


@dataclass(slots=True)
class _Way:
    """One direction: whether bytes pass, and how late they are."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    delay_s: float = 0.0


class TcpProxy:
    """Forwards connections to `target` until it is left. All methods may be called from any thread.

    Args:
        target: host and port, or the path of a Unix socket.
        server_patience_s: how long a cut may last before the server's side of each connection ends; None: for ever.
    """

    def __init__(self, target: tuple[str, int] | str, *, server_patience_s: float | None = None) -> None:
        self._target = target
        self._patience_s = server_patience_s
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._links: set[asyncio.Task[None]] = set()
        self._servers: set[asyncio.StreamWriter] = set()
        self._ending: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self.port = 0
        self.links_made = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # ── what a test does to the network ──────────────────────────────────────────────────────────────────────────────

    def cut(self, *, to_server: bool = True, to_client: bool = True) -> None:
        """Hold back everything, or what goes one way. New connections are accepted and hang, as behind a firewall."""
        self._do(lambda: self._cut(to_server, to_client))

    def slow(self, delay_s: float) -> None:
        """Let each piece arrive so much later, both ways."""

        def do() -> None:
            self._up.delay_s = self._down.delay_s = delay_s

        self._do(do)

    def heal(self) -> None:
        """Let everything pass again, at once; what was held back arrives first."""
        self._do(self._heal)

    def sever(self) -> None:
        """End every connection, on both sides."""

        def do() -> None:
            for link in self._links:
                link.cancel()

        self._do(do)

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _do(self, act: object) -> None:
        done = threading.Event()

        def run() -> None:
            assert callable(act)
            act()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()

    def _cut(self, to_server: bool, to_client: bool) -> None:
        if to_server:
            self._up.open.clear()
        if to_client:
            self._down.open.clear()
        if self._patience_s is not None and self._ending is None:
            self._ending = self._loop.call_later(self._patience_s, self._end_servers)

    def _end_servers(self) -> None:
        self._ending = None
        for writer in self._servers:
            writer.transport.abort()

    def _heal(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        self._up.delay_s = self._down.delay_s = 0.0
        self._up.open.set()
        self._down.open.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._up, self._down = _Way(), _Way()
        self._heal()
        server = self._loop.run_until_complete(asyncio.start_server(self._link, LOOPBACK, 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for link in self._links:
            link.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._links, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0))  # transports close in the next round
        self._loop.close()

    async def _link(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self.links_made += 1
        writers = [client_out]
        try:
            await self._up.open.wait()
            if isinstance(self._target, str):
                server_in, server_out = await asyncio.open_unix_connection(self._target)
            else:
                server_in, server_out = await asyncio.open_connection(*self._target)
            writers.append(server_out)
            self._servers.add(server_out)
            ways = [
                asyncio.ensure_future(self._forward(client_in, server_out, self._up)),
                asyncio.ensure_future(self._forward(server_in, client_out, self._down)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # the server does not listen now: the client sees its connection end
        except asyncio.CancelledError:
            pass  # severed, or the end of the test
        finally:
            self._links.discard(task)
            for writer in writers:
                self._servers.discard(writer)
                writer.transport.abort()

    @staticmethod
    async def _forward(source: asyncio.StreamReader, to: asyncio.StreamWriter, way: _Way) -> None:
        """Until one end closes. An end is news, too, and does not pass a cut."""
        while True:
            try:
                piece = await source.read(CHUNK)
            except OSError:
                piece = b""
            if way.delay_s:
                await asyncio.sleep(way.delay_s)
            await way.open.wait()
            if not piece:
                return
            to.write(piece)
            await to.drain()
