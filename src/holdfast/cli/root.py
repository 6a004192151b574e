"""The command `holdfast` itself: its options, and the table of its commands, each loaded when it is named."""

from __future__ import annotations

from importlib import import_module
from keyword import iskeyword

import click

from holdfast.cli.settings import common_options
from holdfast.version import __version__

COMMANDS = {
    "up": "up",
    "send": "send",
    "chat": "chat",
    "sessions": "sessions",
    "transcript": "transcript",
    "context": "context",
    "turns": "lists",
    "inputs": "lists",
    "outbox": "outbox",
    "children": "lists",
    "approvals": "approvals",
    "channels": "channels",
    "pairing": "pairing",
    "cron": "cron",
    "heartbeat": "heartbeat",
    "stop": "stop",
    "top": "top",
    "model": "model",
    "why": "why",
    "usage": "usage",
    "recover": "recover",
    "doctor": "doctor",
    "token": "token",
    "classify": "classify",
    "incidents": "incidents",
    "backup": "backup",
    "restore": "backup",
    "copy": "copy",
    "import": "moving",
    "postgres": "postgres",
    "prove": "prove",
    "config": "config",
}
"""Command and the module of this package that holds a click command of that name, in the order of a newcomer's day."""

OTHER_NAMES = {
    "start": "up", "run": "up", "serve": "up", "gateway": "up", "ask": "send", "say": "send", "ls": "sessions",
    "models": "model", "log": "why", "status": "top", "check": "doctor", "migrate": "import",
}  # fmt: skip
"""What other programs call these."""


class LazyGroup(click.Group):
    """A group that imports the module of a command when the command is named, or listed by --help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A command that is not there is told with the one that was meant."""
        import difflib

        name = args[0] if args else ""
        meant = OTHER_NAMES.get(name) or next(iter(difflib.get_close_matches(name, COMMANDS, n=1)), None)
        if name not in COMMANDS and not name.startswith("-") and meant is not None:
            ctx.fail(f"No such command {name!r}. Did you mean `holdfast {meant}`?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        return getattr(import_module(f"holdfast.cli.{module}"), name)


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 findings or failure, 2 usage, 69 unavailable (port taken), 75 busy (try again), "
    "78 configuration.",
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@common_options
def root() -> None:
    """Long-lived AI agents that always know who owns a conversation.

    `holdfast up` starts a gateway; `holdfast send agent:main:main "hello"` talks to it, or does without one.
    """
