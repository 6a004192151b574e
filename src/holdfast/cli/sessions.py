"""`holdfast sessions`: which conversations there are; shortening one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from holdfast.cli import exit_codes
from holdfast.cli.lists import limit_option, read, show
from holdfast.cli.output import local_time, log_plainly, print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.cli.stop import user_name
from holdfast.errors import InputError

if TYPE_CHECKING:
    from holdfast.store.views import InputView, SessionView

prefix_option = click.option("--prefix", default="", metavar="TEXT", help="Only keys that begin with it.")
archived_option = click.option("--archived", is_flag=True, help="Also those of sub-agents that were put away.")


@click.group(invoke_without_command=True)
@prefix_option
@archived_option
@limit_option
@common_options
@pass_settings
def sessions(settings: Settings, prefix: str, archived: bool, limit: int) -> None:
    """List the sessions: key, size, who owns it now, what waits, which model answers if it is not the usual one, and
    whose sub-agent's it is. Or see to one of them.
    """
    if click.get_current_context().invoked_subcommand is None:
        _list(settings, prefix, archived, limit)


@sessions.command("list")
@prefix_option
@archived_option
@limit_option
@common_options
@pass_settings
def list_sessions(settings: Settings, prefix: str, archived: bool, limit: int) -> None:
    """The same as `holdfast sessions`."""
    _list(settings, prefix, archived, limit)


def _list(settings: Settings, prefix: str, archived: bool, limit: int) -> None:
    views = read(settings, lambda hf: hf.sessions(prefix=prefix, limit=limit, archived=archived))
    columns = ["SESSION", "BYTES", "OWNER", "WAITING", "MODEL", "SUB-AGENT OF", "LAST USED", "FILE"]
    show(settings, views, columns, _session, empty="no sessions")


def _session(view: SessionView) -> list[str]:
    owner = f"{view.owner_turn} ({view.owner_lane})" if view.owner_turn else "-"
    used = local_time(view.updated_at_ms)
    model = _model_of(view)
    of = f"{view.parent} ({view.child_state})" if view.parent else "-"
    return [view.key, str(view.size_bytes), owner, str(view.queued), model, of, used, view.path or view.transcript]


def _model_of(view: SessionView) -> str:
    if view.pin is not None and view.pin.holds:
        return f"{view.pin.model} ({view.pin.source} pin: {view.pin.reason})"
    if view.fallback is not None:
        return f"{view.fallback.active} (in place of {view.fallback.selected}: {view.fallback.reason})"
    return "-"


@sessions.command()
@click.argument("key", metavar="SESSION")
@click.option("--focus", default="", metavar="TEXT", help="What the summary should keep above all.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), default=300.0, show_default=True, metavar="SECONDS",
              help="0: only until it is stored; a gateway then does it.")  # fmt: skip
@common_options
@pass_settings
def compact(settings: Settings, key: str, focus: str, wait_s: float) -> int:
    """Shorten a conversation for its model: a summary stands for its older part, its newest messages stay word for
    word. Nothing is removed from the transcript.

    It waits for whoever has the session. Works with and without a gateway. Exit code 1: it was not shortened, and why;
    75: it goes on after --wait.
    """
    view = asyncio.run(_compact(settings, key, focus, wait_s))
    if settings.json:
        print_json({"id": view.id, "session": view.session, "state": view.state, "answer": view.answer,
                    "detail": view.detail})  # fmt: skip
    else:
        print_text(view.answer or f"{view.id}: {view.state}" + (f": {view.detail}" if view.detail else ""))
    if wait_s <= 0 or view.state == "answered":
        return exit_codes.DONE
    return exit_codes.FAILED if view.settled else exit_codes.TRY_AGAIN


async def _compact(settings: Settings, key: str, focus: str, wait_s: float) -> InputView:
    from holdfast.gateway.app import open_handle, run_until_settled
    from holdfast.inbound.event import LaneFull
    from holdfast.inbound.upkeep import ask_for_compaction

    config = settings.load().config
    log_plainly()
    async with open_handle(config, settings.existing_state(), kind="cli") as hf:
        if key not in {view.key for view in await hf.sessions(prefix=key)}:
            raise InputError(f"no session {key!r}; `holdfast sessions` lists them")
        admission = await ask_for_compaction(hf, key, by=f"holdfast sessions compact ({user_name()})", focus=focus)
        if isinstance(admission, LaneFull):
            raise exit_codes.TryAgainError(
                f"lane {admission.lane!r} is full ({admission.waiting} waiting); try again later"
            )
        if wait_s > 0:
            return await run_until_settled(hf, config, admission.input_id, timeout_s=wait_s)
        return await hf.input(admission.input_id)
