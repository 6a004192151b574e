"""`holdfast up`: from a free port to a clean exit. One process, one event loop, uvicorn inside it.

Signals: the first SIGTERM or SIGINT drains (new input is refused, running turns get their time), the second ends the
waiting, the third ends the process as the system does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from holdfast.channel.web_words import FRAME_BYTES_MAX
from holdfast.clock import iso
from holdfast.gateway import address, log
from holdfast.gateway.app import USUAL, Gateway, Parts, build_gateway, open_handle
from holdfast.gateway.connection import BoundedHttp
from holdfast.gateway.lag import watch_lag
from holdfast.gateway.reloading import Reread
from holdfast.gateway.secret_values import secrets_of
from holdfast.node_dir import is_url, make_node_dir, node_dir
from holdfast.opening import refuse_address
from holdfast.recovery.restart import booted

if TYPE_CHECKING:
    from holdfast.config import Config

EXIT_DONE, EXIT_FAILED, EXIT_PORT_TAKEN = 0, 1, 69
GOODBYE_S = 3.0  # for replies that are being written when everything else has ended
CONNECTIONS_MAX = 2000
SIGNALS = (signal.SIGTERM, signal.SIGINT)
GREETING = """
Try it in a browser, with the token: {url}/login

Or in another terminal:

  holdfast --state {state} send agent:main:main "hello"
  holdfast --state {state} why agent:main:main

  curl -N {url}/v1/chat/completions -H "Authorization: Bearer $(cat {token_file})" \\
       -H "Content-Type: application/json" -H "X-Holdfast-Session: agent:main:main" \\
       -d '{{"model": "holdfast", "stream": true, "messages": [{{"role": "user", "content": "hello"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key=open("{token_file}").read().strip())
  client.chat.completions.create(model="holdfast", user="me", messages=[{{"role": "user", "content": "hello"}}])
"""
logger = logging.getLogger("holdfast.gateway")


def run_gateway(
    config: Config,
    state: str | os.PathLike[str],
    *,
    host: str | None = None,
    port: int | None = None,
    log_format: str = "text",
    say: Callable[[str], None] | None = None,
    parts: Parts = USUAL,
    reread: Reread | None = None,
    warnings: Sequence[str] = (),
) -> int:
    """Serve until a signal. Returns the exit code: 0 after a signal, 69 if the port is taken, 1 if the store failed.

    Args:
        host, port: over the configuration's. Port 0: one that is free.
        log_format: "text" or "json"; log lines go to standard error.
        reread: reads the configuration again, on SIGHUP and when its file changes; None: it is read once.
        say: takes what people read, a line at a time; None: standard output.
        warnings: what is doubtful in the configuration, told once it is ready.

    Raises:
        as `holdfast.open`; ResourceError: the address cannot be listened on, or the token file cannot be used.
    """
    say = say or _to_stdout
    host = host or config.gateway.host
    where = os.fspath(state)
    if is_url(where):
        refuse_address(where)
    log.configure(sys.stderr, form=log_format, secrets=secrets_of(config, parts.env, where))
    try:
        listener = address.listen(host, config.gateway.port if port is None else port, node_dir(where))
    except address.PortTakenError as exc:
        logger.error("%s", exc)
        return EXIT_PORT_TAKEN
    with listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(config, where, host, listener, log_format, say, parts, reread, warnings))


async def _serve(
    config: Config,
    state: str,
    host: str,
    listener: socket.socket,
    log_format: str,
    say: Callable[[str], None],
    parts: Parts,
    reread: Reread | None,
    warnings: Sequence[str],
) -> int:
    """Everything between the socket and the exit code."""
    _raise_file_limit()
    with _signals() as asked_to_end:
        async with open_handle(config, state, kind="gateway", parts=parts) as hf:
            folder = make_node_dir(state)
            token_file = Path(config.gateway.token_file or folder / "token")
            token, is_new = address.load_token(token_file)
            log.configure(sys.stderr, form=log_format, secrets=secrets_of(config, parts.env, state, token))
            async with (
                booted(hf.store, unclean_max=config.gateway.unclean_boots_max) as hold,
                build_gateway(config, hf, token=token, host=host, parts=parts, reread=reread) as gateway,
                Server(gateway, listener) as server,
            ):
                here = server.reachable_at(host)
                address.write_address(folder, here)
                lag = asyncio.create_task(watch_lag(gateway.metrics.loop_lag.observe), name="lag")
                rereading = asyncio.create_task(_reread(gateway, watches=config.gateway.watch_config), name="config")
                telling = asyncio.create_task(address.keep_told(folder, here), name="address")
                try:
                    _greet(say, here, hf.state if is_url(state) else state, token_file, token if is_new else None)
                    for warning in warnings:
                        say(f"Warning: {warning}.")
                    if hold is not None:
                        say(f"Work is held back: {hold.way_out}.")
                    return await _until_asked(gateway, asked_to_end, config.gateway.drain_s)
                finally:
                    telling.cancel()
                    lag.cancel()
                    rereading.cancel()
                    await asyncio.gather(telling, rereading, return_exceptions=True)
                    address.remove_address(folder, here)


async def _reread(gateway: Gateway, *, watches: bool) -> None:
    """Until cancelled: read the configuration again on SIGHUP, and when its file changes."""
    loop, hung_up = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    watching = asyncio.create_task(gateway.reloading.watch(), name="config file") if watches else None
    try:
        while True:
            await hung_up.wait()
            hung_up.clear()
            await gateway.reloading.reload("SIGHUP")
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _until_asked(gateway: Gateway, asked_to_end: asyncio.Queue[signal.Signals], drain_s: float) -> int:
    """Wait for a signal, or for the end of the worker; then drain."""
    asked = asyncio.ensure_future(asked_to_end.get())
    await asyncio.wait({asked, gateway.working}, return_when=asyncio.FIRST_COMPLETED)
    if not asked.done():
        asked.cancel()
        logger.error("the worker has ended: %s", gateway.working.exception())
        return EXIT_FAILED
    logger.info("%s: draining; running turns get %g s", asked.result().name, drain_s)
    draining = asyncio.ensure_future(gateway.drain(drain_s))
    again = asyncio.ensure_future(asked_to_end.get())
    await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        logger.warning("%s: ending now; interrupted turns are queued again", again.result().name)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        await gateway.drain(0.0)
    again.cancel()
    await asyncio.gather(draining, again, return_exceptions=True)
    logger.info("drained")
    return EXIT_DONE


class Server(uvicorn.Server):
    """uvicorn as a context: serving inside, finished after it. Signals are ours."""

    def __init__(self, gateway: Gateway, listener: socket.socket) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        super().__init__(
            uvicorn.Config(
                gateway.app,
                http=BoundedHttp,
                ws="websockets-sansio",
                ws_max_size=FRAME_BYTES_MAX,
                ws_per_message_deflate=False,  # frames are small, and bounded as they are sent
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # who is named by a header is not who called
                timeout_keep_alive=75,  # longer than clients keep idle connections, so that they close them
                limit_concurrency=min(CONNECTIONS_MAX, max(64, soft // 2)),  # the other half is for files
            )
        )
        self._gateway = gateway
        self._listener = listener
        self._serving: asyncio.Task[None] | None = None
        self._is_up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._is_up.set()

    def reachable_at(self, host: str) -> address.Address:
        """What to tell those who look for the gateway."""
        port = self._listener.getsockname()[1]
        url, now = address.url_of(host, port), iso(self._gateway.hf.clock.now())
        return address.Address(url, host, port, os.getpid(), self._gateway.hf.store.store_id, now)

    async def __aenter__(self) -> Server:
        self._serving = asyncio.create_task(self.serve([self._listener]), name="http")
        up = asyncio.ensure_future(self._is_up.wait())
        await asyncio.wait({self._serving, up}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._serving.done():
            self._serving.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._serving is not None
        self.should_exit = True
        enough = asyncio.get_running_loop().call_later(GOODBYE_S, self._hang_up)
        await asyncio.gather(self._serving, return_exceptions=True)
        enough.cancel()

    def _hang_up(self) -> None:
        """Close what is still open: callers who read too slowly, or have not finished asking."""
        for connection in list(self.server_state.connections):
            abort = getattr(getattr(connection, "transport", None), "abort", None)  # of a request, or of a socket
            if abort is not None:
                abort()


@contextmanager
def _signals() -> Iterator[asyncio.Queue[signal.Signals]]:
    """SIGTERM and SIGINT as items of a queue while inside."""
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in SIGNALS:
        loop.add_signal_handler(number, asked.put_nowait, number)
    try:
        yield asked
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None  # not there on every platform; only slower
    return uvloop.new_event_loop


def _raise_file_limit() -> None:
    """As many open files as the system lets us have: sockets, transcripts and locks all take one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as exc:
            logger.info("the limit of open files stays at %d: %s", soft, exc)


def _greet(
    say: Callable[[str], None], here: address.Address, state: str, token_file: Path, new_token: str | None
) -> None:
    if new_token is not None:
        say(f"token, shown this once and kept in {token_file}: {new_token}")
    say(f"Holdfast is ready at {here.address} (pid {here.pid}, state {state})")
    say(GREETING.format(state=state, url=here.address, token_file=token_file))


def _to_stdout(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
