"""A gateway as a process of its own, with a tool that says nothing until a file appears: `STATE CONFIG FILE`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from holdfast.config.load import load_config
from holdfast.gateway.app import Parts
from holdfast.gateway.supervise import run_gateway
from holdfast.model.client import ToolSpec
from holdfast.turn.tools import Tool, ToolCall

LOOK_S = 0.05
SILENCE_MAX_S = 700.0


def hush_until(file: Path) -> Tool:
    """The tool. It is told to end by a file, since whoever tells it lives in another process."""

    async def hush(_: ToolCall) -> str:
        while not file.exists():  # noqa: ASYNC110  # what ends it is another process
            await asyncio.sleep(LOOK_S)
        return "done"

    return Tool(ToolSpec("hush", "Works in silence.", {"type": "object"}), hush, seconds_max=SILENCE_MAX_S)


if __name__ == "__main__":
    state, config_file, end_file = sys.argv[1:]
    tool = hush_until(Path(end_file))
    sys.exit(run_gateway(load_config(Path(config_file), os.environ), state, port=0, parts=Parts(tools=[tool])))
