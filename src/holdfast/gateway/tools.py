"""The tools of a gateway, joined: its own, users' functions, servers, and the gate that all calls pass."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import InputError
from holdfast.node_dir import node_dir
from holdfast.tool.background import Background
from holdfast.tool.exec import exec_tool
from holdfast.tool.files import file_tools
from holdfast.tool.functions import load_tools
from holdfast.tool.gate import Gate
from holdfast.tool.message import message_tool
from holdfast.tool.origin import Approvers
from holdfast.tool.redact import Redactor
from holdfast.tool.respond import respond_tool
from holdfast.tool.servers import Servers
from holdfast.tool.status import status_tool
from holdfast.turn.spawning import spawn_tool
from holdfast.turn.tools import Toolbox, built_in_tools

if TYPE_CHECKING:
    from holdfast.config import Config
    from holdfast.gateway.app import Parts
    from holdfast.kernel import Holdfast


@dataclass(frozen=True, slots=True)
class Tools:
    """What a runner gets."""

    toolbox: Toolbox
    gate: Gate
    approvers: Approvers


def redactor_of(config: Config, parts: Parts, state: str = "", *more: str) -> Redactor:
    """Takes out every secret that is known (`secret_values.py`); `state` and `more` as there."""
    from holdfast.gateway.secret_values import secrets_of

    return Redactor(secrets_of(config, parts.env, state, *more))


def make_tools(
    hf: Holdfast,
    config: Config,
    parts: Parts,
    *,
    model_of: Callable[[str], str],
    channels: Collection[str] | None,
    background: Background | None,
    redactor: Redactor,
) -> Tools:
    """The tools that need no starting.

    Args:
        channels: where messages may be sent to; None: not known here.
        background: runs programs that go on by themselves; None: there are none here.

    Raises:
        InputError: a function or plugin of the configuration cannot be loaded.
    """
    own = config.tools
    settings = own.gate(name for name, one in config.channels.items() if one.is_open)
    users = load_tools(own.functions, own.plugins) if own.functions or own.plugins else []
    tools = [
        *built_in_tools(hf.clock),
        *file_tools(),
        exec_tool(own.programs(), hf.clock, env=parts.env, background=background),
        message_tool(hf, channels=channels, known=own.known_targets),
        status_tool(hf, model_of=model_of),
        respond_tool(),
        spawn_tool(hf),
        *users,
        *parts.tools,
    ]
    return Tools(Toolbox(tools), Gate(hf, settings, redactor), Approvers(settings.policy, own.approvers))


@asynccontextmanager
async def run_servers(hf: Holdfast, config: Config, parts: Parts) -> AsyncIterator[Servers | None]:
    """Servers of tools, started when they are first needed, until left; then all are ended. None: there are none.

    Raises:
        InputError: there are, and the library for them is not installed.
    """
    if not config.tools.servers:
        yield None
        return
    if importlib.util.find_spec("fastmcp") is None:
        raise InputError("tools.servers: MCP servers need the extra `mcp`: pip install 'holdfast[mcp]'")
    settings = [one.settings(name, str(node_dir(hf.state)), parts.env) for name, one in config.tools.servers.items()]
    servers = Servers(settings, hf.clock)
    try:
        yield servers
    finally:
        await servers.close()


@asynccontextmanager
async def run_background(hf: Holdfast, redactor: Redactor) -> AsyncIterator[Background]:
    """Run programs in the background, and bring their ends to their sessions, until left; then all are ended."""
    background = Background(hf, redactor.text)
    watching = asyncio.create_task(background.run(), name="background")
    try:
        yield background
    finally:
        await background.close()
        await asyncio.gather(watching, return_exceptions=True)  # it fails only with the store, as the worker does
