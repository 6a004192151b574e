"""`holdfast stop`: ask an input or a turn to end."""

from __future__ import annotations

import asyncio
import getpass

import click

from holdfast.cli.output import log_plainly, print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings


@click.command()
@click.argument("target", metavar="ID")
@common_options
@pass_settings
def stop(settings: Settings, target: str) -> None:
    """Ask an input (in_…), a running turn (turn_…) or a sub-agent (child_…) to stop.

    A waiting input is cancelled at once. A running one is asked ("requested"): its owner, in whatever process, sees it
    within a second and settles it; an answer that is already final wins. Sub-agents that it has spawned are stopped
    with it; the parent of a sub-agent that is stopped by itself is told. Asking twice is the same as once.
    """
    log_plainly()
    result = asyncio.run(ask_to_stop(settings, target))
    if settings.json:
        print_json({"id": target, "result": result})
    else:
        print_text(f"{target}: {result}")


async def ask_to_stop(settings: Settings, target: str) -> str:
    """What came of it: `requested`, `cancelled`, `already STATE`. Raises UnknownInputError."""
    import holdfast

    # The ledger alone is written to, so no lock of another program's is needed.
    async with holdfast.open(settings.existing_state(), kind="cli", lock_protocol="none") as hf:
        return await hf.cancel(target, by=f"holdfast stop ({user_name()})")


def user_name() -> str:
    """The operating system's name for who runs this."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        return "unknown user"
