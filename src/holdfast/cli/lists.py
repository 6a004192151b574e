"""`turns`, `inputs`, `children`: what is in the store, newest first. They change nothing in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from holdfast.cli.another_state import telling_of_another_state
from holdfast.cli.output import local_time, log_plainly, print_json, print_table, shortened
from holdfast.cli.settings import Settings, common_options, pass_settings

if TYPE_CHECKING:
    from holdfast.inbound.child import Child
    from holdfast.kernel import Holdfast
    from holdfast.store.views import InputView, TurnView

T = TypeVar("T")

limit_option = click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most.")
session_option = click.option("--session", metavar="KEY", help="Only of this session.")


def read(settings: Settings, ask: Callable[[Holdfast], Awaitable[T]]) -> T:
    """What `ask` finds in the state, which stays as it is to the last time stamp. Raises InputError if there is none.

    The configuration is not read: it says how turns are run, and no turn is run here.
    """
    import holdfast

    log_plainly()

    async def go() -> T:
        async with holdfast.open_reader(settings.existing_state()) as hf:
            return await ask(hf)

    with telling_of_another_state(settings):
        return asyncio.run(go())


def show(
    settings: Settings, views: Sequence[T], columns: Sequence[str], row: Callable[[T], Sequence[str]], *, empty: str
) -> None:
    """The views as JSON, or as a table of `row`s."""
    if settings.json:
        print_json(list(views))
    else:
        print_table(columns, [row(view) for view in views], empty=empty)


@click.command()
@session_option
@limit_option
@common_options
@pass_settings
def turns(settings: Settings, session: str | None, limit: int) -> None:
    """List the turns, those that run (with what they do, as of their last beat) and those that ended."""
    views = read(settings, lambda hf: hf.turns(session=session, limit=limit))
    columns = ["TURN", "SESSION", "LANE", "STATE", "OUTCOME", "STARTED", "INPUT", "DOING"]
    show(settings, views, columns, _turn, empty="no turns")


def _turn(view: TurnView) -> list[str]:
    started = local_time(view.started_at_ms)
    doing = shortened(view.work.words) if view.work is not None else "-"
    return [view.id, view.session, view.lane, view.state, view.outcome or "-", started, view.input_id or "-", doing]


@click.command()
@session_option
@click.option("--in-state", "wanted", metavar="STATE", help="Only in this state: queued, running, answered, failed, …")
@limit_option
@common_options
@pass_settings
def inputs(settings: Settings, session: str | None, wanted: str | None, limit: int) -> None:
    """List the inputs and what became of them; `holdfast why ID` tells more."""
    views = read(settings, lambda hf: hf.inputs(session=session, state=known_state("input", wanted), limit=limit))
    columns = ["INPUT", "SESSION", "LANE", "SOURCE", "STATE", "ACCEPTED", "DETAIL"]
    show(settings, views, columns, _input, empty="no inputs")


def _input(view: InputView) -> list[str]:
    detail = shortened(view.detail or view.answer or (f"{view.position} before it" if view.position else "") or "-")
    return [view.id, view.session, view.lane, view.source, view.state, local_time(view.accepted_at_ms), detail]


@click.command()
@click.option("--session", metavar="KEY", help="Only those that this session has spawned.")
@click.option("--open", "only_open", is_flag=True, help="Only those of whose ends their parents have still to hear.")
@limit_option
@common_options
@pass_settings
def children(settings: Settings, session: str | None, only_open: bool, limit: int) -> None:
    """List the sub-agents: who gave them their tasks, how far they are; `holdfast why child_…` tells more."""
    views = read(settings, lambda hf: hf.children(session=session, only_open=only_open, limit=limit))
    columns = ["SUB-AGENT", "TASK", "STATE", "OUTCOME", "OF", "SPAWNED", "DETAIL"]
    show(settings, views, columns, _child, empty="no sub-agents")


def _child(one: Child) -> list[str]:
    detail = shortened(one.detail or (f"stopped by {one.stop_by}" if one.stop_by else "-"))
    return [one.id, one.label, one.state, one.outcome or "-", one.parent_session, local_time(one.spawned_at_ms), detail]


def known_state(machine: str, state: str | None) -> str | None:
    """The state asked for, if the table of that machine has it. Raises a usage error that lists those it has."""
    from holdfast.lane.states import states_of

    states = states_of(machine)
    if state is not None and state not in states:
        raise click.UsageError(f"no state {state!r}; there are {', '.join(states)}")
    return state
