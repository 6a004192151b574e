"""The tool `exec`: a program with an argument list, in the workspace, with a clean environment and an end."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.clock import Clock
from holdfast.errors import HoldfastError
from holdfast.model.client import ToolSpec
from holdfast.tool.arguments import flag, list_of_texts, number, text_of
from holdfast.tool.files import workspace_of
from holdfast.tool.process import OUTPUT_BYTES_MAX, PROCESSES_MAX, Order, Ran, Running, check_argv, clean_env
from holdfast.turn.tools import Tool, ToolCall

if TYPE_CHECKING:
    from holdfast.tool.background import Background

NAME = "exec"
TIMEOUT_S, TIMEOUT_S_MAX = 60, 600


@dataclass(frozen=True, slots=True)
class ExecSettings:
    """How programs are run.

    Args:
        timeout_s: unless a call names less or more; timeout_s_max: longest, in the foreground.
        background_s_max: longest, in the background.
        env: of the gateway's environment, what they get besides `process.ENV_ALLOWED`.
    """

    timeout_s: int = TIMEOUT_S
    timeout_s_max: int = TIMEOUT_S_MAX
    background_s_max: int = 3600
    output_bytes_max: int = OUTPUT_BYTES_MAX
    processes_max: int = PROCESSES_MAX
    env: tuple[str, ...] = ()


def exec_tool(
    settings: ExecSettings, clock: Clock, *, env: Mapping[str, str] | None = None, background: Background | None = None
) -> Tool:
    """The tool. It is not restart-safe: a program that may have run is not run again by itself.

    Args:
        env: of this process. background: runs what is to go on by itself; None: that is not offered.
    """
    ours = dict(os.environ) if env is None else env

    async def run(call: ToolCall) -> str:
        order = order_of(call, settings, ours)
        if flag(call, "background"):
            if background is None:
                return "there is no background here; run it without"
            return await background.begin(call, order)
        ran = await (await Running.start(order, clock)).run(call.say, still_wanted=lambda: _is_ours(call))
        return told(ran, order)

    limit = settings.timeout_s_max + 30.0
    return Tool(_spec(settings, has_background=background is not None), run, seconds_max=limit, effect="run")


async def _is_ours(call: ToolCall) -> bool:
    try:
        await call.check()
    except HoldfastError:  # the turn meets it again at its next append, and says what it is
        return False
    return True


def order_of(call: ToolCall, settings: ExecSettings, ours: Mapping[str, str]) -> Order:
    """What a call asks for. Raises InputError: the model is told what is wrong."""
    argv = check_argv(list_of_texts(call, "argv"))
    in_background = flag(call, "background")
    longest = settings.background_s_max if in_background else settings.timeout_s_max
    usual = longest if in_background else min(settings.timeout_s, longest)
    space = workspace_of(call)
    cwd = space.folder_path(text_of(call, "cwd", "."))
    env = clean_env(ours, home=space.root, more=settings.env)
    # The fencing token, for what the program touches: it can refuse a turn that has lost its session.
    env |= {
        "HOLDFAST_SESSION": call.session,
        "HOLDFAST_TURN": call.turn,
        "HOLDFAST_EPOCH": str(call.epoch.number),
    }
    return Order(
        argv, cwd, env, number(call, "timeout_s", usual, 1, longest), settings.output_bytes_max, settings.processes_max
    )


def told(ran: Ran, order: Order) -> str:
    """The result as the model reads it."""
    head = f"{how_it_ended(ran, order.timeout_s)} ({ran.seconds:.1f} s)"
    return f"{head}\n{ran.output}" if ran.output else f"{head}, no output"


def how_it_ended(ran: Ran, timeout_s: float) -> str:
    if ran.how == "timeout":
        return f"killed after {timeout_s:g} s, with everything it had started"
    if ran.how == "lost":
        return "killed: it was no longer wanted"
    return f"exit code {ran.code}" if ran.code >= 0 else f"killed by signal {-ran.code}"


def command_line(argv: tuple[str, ...] | list[str]) -> str:
    """For people: as a shell would need it written."""
    return shlex.join(argv)


def _spec(settings: ExecSettings, *, has_background: bool) -> ToolSpec:
    later = {
        "background": {
            "type": "boolean",
            "description": "Return at once; its end comes here as a message by itself, so do not wait for it.",
        }
    }
    return ToolSpec(
        NAME,
        "Run a program in the workspace. There is no shell: give the program and each of its arguments, or run "
        '["sh", "-c", "…"]. Gives exit code and output.',
        {
            "type": "object",
            "properties": {
                "argv": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "cwd": {"type": "string", "description": "Folder of the workspace to work in; left out: itself."},
                "timeout_s": {
                    "type": "integer",
                    "description": f"Seconds until it is killed; left out: {settings.timeout_s}, at most "
                    f"{settings.timeout_s_max}.",
                },
                **(later if has_background else {}),
            },
            "required": ["argv"],
        },
    )
