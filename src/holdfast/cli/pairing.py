"""`holdfast pairing`: unknown senders who have asked to be let in, and letting them in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from holdfast.cli.lists import limit_option, read, show
from holdfast.cli.output import local_time, log_plainly, print_json, print_text, shortened
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.cli.stop import user_name
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.inbound.pairing import Pairing
    from holdfast.kernel import Holdfast


@click.group()
@common_options
def pairing() -> None:
    """See who asks to be let in, and let them in or out."""


@pairing.command("list")
@click.option("--channel", metavar="NAME", help="Only of this channel.")
@limit_option
@common_options
@pass_settings
def list_pairings(settings: Settings, channel: str | None, limit: int) -> None:
    """List senders who have asked, newest first, and what became of them."""
    views = read(settings, lambda hf: hf.store.pairings(channel=channel, limit=limit))
    columns = ["CHANNEL", "SENDER", "NAME", "STATE", "CODE", "ASKED", "BY"]
    show(settings, views, columns, _row, empty="nobody has asked")


def _row(one: Pairing) -> list[str]:
    code = one.code if one.state == "pending" else "-"
    asked = local_time(one.asked_at_ms)
    return [one.channel, on_one_line(one.sender), shortened(one.name), one.state, code, asked, one.decided_by or "-"]


@pairing.command()
@click.argument("channel")
@click.argument("code")
@common_options
@pass_settings
def approve(settings: Settings, channel: str, code: str) -> None:
    """Let in whom CODE was sent to: what they write from now on is taken."""
    from holdfast.inbound import admitting

    _decide(settings, lambda hf: admitting.approve(hf, channel, code, by=f"holdfast pairing ({user_name()})"))


@pairing.command()
@click.argument("channel")
@click.argument("sender")
@common_options
@pass_settings
def revoke(settings: Settings, channel: str, sender: str) -> None:
    """Let SENDER in no more. What they have said stays."""
    from holdfast.inbound import admitting

    _decide(settings, lambda hf: admitting.revoke(hf, channel, sender, by=f"holdfast pairing ({user_name()})"))


def _decide(settings: Settings, act: Callable[[Holdfast], Awaitable[Pairing]]) -> None:
    import holdfast

    log_plainly()

    async def go() -> Pairing:
        # The ledger alone is written to, so no lock of another program's is needed.
        async with holdfast.open(settings.existing_state(), kind="cli", lock_protocol="none") as hf:
            return await act(hf)

    decided = asyncio.run(go())
    if settings.json:
        print_json(decided)
    else:
        print_text(f"{decided.channel}: {on_one_line(decided.sender)} {shortened(decided.name)}: {decided.state}")
