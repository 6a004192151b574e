"""`holdfast approvals`: questions whether a tool call may run, and answering them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from holdfast.cli.lists import limit_option, read, session_option, show
from holdfast.cli.output import local_time, log_plainly, print_json, print_text, shortened
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.cli.stop import user_name
from holdfast.errors import UnknownInputError
from holdfast.text import escape_controls

if TYPE_CHECKING:
    from holdfast.tool.approval import Approval, Scope

id_argument = click.argument("approval", metavar="ID")


@click.group()
@common_options
def approvals() -> None:
    """See what agents ask to be allowed, and allow or deny it."""


@approvals.command("list")
@session_option
@click.option("--all", "every", is_flag=True, help="Also those that are answered or void.")
@limit_option
@common_options
@pass_settings
def list_approvals(settings: Settings, session: str | None, every: bool, limit: int) -> None:
    """List the questions that wait for an answer."""
    views = read(settings, lambda hf: hf.approvals(session=session, pending=not every, limit=limit))
    columns = ["ID", "TOOL", "STATE", "SESSION", "UNTIL", "ARGUMENTS"]
    show(settings, views, columns, _row, empty="no questions")


def _row(one: Approval) -> list[str]:
    return [one.id, one.tool, one.state, one.session, local_time(one.expires_at_ms), shortened(one.shown)]


@approvals.command("show")
@id_argument
@common_options
@pass_settings
def show_approval(settings: Settings, approval: str) -> None:
    """Show exactly what would be run."""
    found = read(settings, lambda hf: hf.store.approval(approval))
    if found is None:
        raise UnknownInputError(f"no question {approval!r}; `holdfast approvals list` lists those that wait")
    if settings.json:
        print_json(found)
        return
    for name, value in (("tool", found.tool), ("state", found.state), ("session", found.session), ("why", found.why),
                        ("by", found.by or "")):  # fmt: skip
        if value:
            print_text(f"{name:9} {escape_controls(value)}")
    print_text("\n" + escape_controls(found.shown))


@approvals.command()
@id_argument
@click.option("--session", "for_session", is_flag=True, help="Alike calls of this conversation may run, too.")
@common_options
@pass_settings
def approve(settings: Settings, approval: str, for_session: bool) -> None:
    """Let the call run."""
    _answer(settings, approval, yes=True, scope="session" if for_session else "once")


@approvals.command()
@id_argument
@common_options
@pass_settings
def deny(settings: Settings, approval: str) -> None:
    """Do not let it run; the model is told so."""
    _answer(settings, approval, yes=False, scope="once")


def _answer(settings: Settings, approval: str, *, yes: bool, scope: Scope) -> None:
    import holdfast

    log_plainly()

    async def go() -> Approval:
        # The ledger alone is written to, so no lock of another program's is needed.
        async with holdfast.open(settings.existing_state(), kind="cli", lock_protocol="none") as hf:
            return await hf.answer_approval(approval, yes=yes, by=f"holdfast approvals ({user_name()})", scope=scope)

    answered = asyncio.run(go())
    if settings.json:
        print_json(answered)
    else:
        print_text(f"{answered.id}: {answered.state}, {answered.tool}")
