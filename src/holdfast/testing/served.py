"""A real gateway on a free loopback port, inside the test's own event loop, with a model of the test's choice.

async with served(tmp_path, model=ScriptedModel("Hello!")) as gateway:
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from holdfast.channel.channel import Channel
from holdfast.channel.listening import Adapter
from holdfast.clock import Clock
from holdfast.config import Config
from holdfast.gateway import address
from holdfast.gateway.app import Gateway, Parts, build_gateway, open_handle
from holdfast.gateway.reloading import Reread
from holdfast.gateway.supervise import Server
from holdfast.kernel import Holdfast
from holdfast.model.client import ModelClient
from holdfast.node_dir import make_node_dir
from holdfast.turn.tools import Tool

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway that answers at `url` for `token`; `gateway.hf` is its handle on the state."""

    gateway: Gateway
    url: str
    token: str

    @property
    def hf(self) -> Holdfast:
        return self.gateway.hf

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"authorization": f"Bearer {self.token}"}


@asynccontextmanager
async def served(
    state: Path | str,
    *,
    model: ModelClient | None = None,
    tools: Iterable[Tool] = (),
    config: Config | None = None,
    clock: Clock | None = None,
    env: Mapping[str, str] = MappingProxyType({}),
    channels: Iterable[Channel] = (),
    adapters: Mapping[str, Adapter] = MappingProxyType({}),
    reread: Reread | None = None,
) -> AsyncIterator[Served]:
    """Serve a state until the block is left, which interrupts the turns that still run.

    Args:
        state: a folder, or the URL of a database.
        model: answers for every reference "demo/…", the default one among them; None: the demo model itself.
        tools: beside the built-in ones.
        env: where keys and secrets are looked up.
        channels: besides the console. adapters: in place of those that the configuration's channels would have.
        reread: where the configuration is read again.
        clock: for the handle and its worker; the sockets live in real time.
    """
    config = config or Config()
    parts = Parts(clock=clock, models={} if model is None else {"demo": model}, tools=tools, env=env,
                  channels=channels, adapters=adapters)  # fmt: skip
    async with open_handle(config, state, kind="gateway", parts=parts) as hf:
        folder = make_node_dir(state)
        token, _ = address.load_token(folder / "token")
        listener = address.listen(LOOPBACK, 0, folder)
        with listener:
            async with (
                build_gateway(config, hf, token=token, host=LOOPBACK, parts=parts, reread=reread) as gateway,
                Server(gateway, listener) as server,
            ):
                yield Served(gateway, server.reachable_at(LOOPBACK).address, token)
