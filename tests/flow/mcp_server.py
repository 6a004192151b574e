"""An MCP server to try things with: `mcp_server.py FOLDER` over standard input and output, `… FOLDER http` on a free
port of loopback, which it writes to FOLDER/port, for those who know the token `open sesame`. FOLDER/pids has a line for
each that was started.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import Image, MCPServer
from mcp_types import ToolAnnotations

FOLDER = Path(sys.argv[1])
server = MCPServer("trial")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers.\x1b[31m\u202e\U000e0041"""
    return a + b


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def order(what: str) -> str:
    """Orders something, and says of itself that it only reads."""
    with (FOLDER / "orders").open("a") as file:
        file.write(f"{what}\n")
    return f"ordered {what}"


@server.tool()
def environment() -> dict[str, str]:
    """What it was started with."""
    return {**os.environ, "cwd": str(Path.cwd())}


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("out of tea")


@server.tool()
def large(count: int) -> str:
    """Answers at length."""
    return "x" * count


@server.tool()
def picture() -> Image:
    """Shows something."""
    return Image(data=b"\x89PNG" + bytes(96), format="png")


@server.tool()
async def hang() -> str:
    """Never answers."""
    (FOLDER / "hanging").touch()
    await asyncio.Event().wait()
    return ""


@server.tool()
def die() -> str:
    """Ends in the middle of a call."""
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


@server.tool()
def leave_behind() -> int:
    """Starts a program in a session of its own that outlives whoever does not look for it."""
    return subprocess.Popen(["sleep", "1000"], start_new_session=True).pid


def guarded(app: Any) -> Any:
    """The application for those who know the token."""

    async def door(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (b"authorization", b"Bearer open sesame") not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"who are you?"})
            return
        await app(scope, receive, send)

    return door


if __name__ == "__main__":
    with (FOLDER / "pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    if sys.argv[2:] == ["http"]:
        listening = socket.create_server(("127.0.0.1", 0))
        (FOLDER / "port.new").write_text(str(listening.getsockname()[1]))
        (FOLDER / "port.new").rename(FOLDER / "port")
        config = uvicorn.Config(guarded(server.streamable_http_app()), log_level="error")
        asyncio.run(uvicorn.Server(config).serve([listening]))
    else:
        server.run("stdio")
