"""`holdfast outbox`: what must go out and whether it has; sending again what was given up, or never."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from holdfast.cli.lists import known_state, limit_option, read, show
from holdfast.cli.output import local_time, log_plainly, print_json, print_text, shortened
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.cli.stop import user_name
from holdfast.errors import InputError
from holdfast.text import escape_controls

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.outbox.outbox import OpenDelivery
    from holdfast.store.views import DeliveryView

state_option = click.option(
    "--in-state",
    "wanted",
    metavar="STATE",
    help="Only: pending, started, sent, unknown, failed, dropped.",
)
ids_argument = click.argument("ids", metavar="DELIVERY…", nargs=-1, required=True)


@click.group(invoke_without_command=True)
@state_option
@limit_option
@common_options
@pass_settings
def outbox(settings: Settings, wanted: str | None, limit: int) -> None:
    """List what must go out, and whether it has; or see to single deliveries.

    Exit code 1 if something was given up or its fate is unknown.
    """
    if click.get_current_context().invoked_subcommand is None:
        _list(settings, wanted, limit)


@outbox.command("list")
@state_option
@limit_option
@common_options
@pass_settings
def list_deliveries(settings: Settings, wanted: str | None, limit: int) -> None:
    """The same as `holdfast outbox`."""
    _list(settings, wanted, limit)


def _list(settings: Settings, wanted: str | None, limit: int) -> None:
    views = read(settings, lambda hf: hf.deliveries(state=known_state("delivery", wanted), limit=limit))
    columns = ["DELIVERY", "INPUT", "ROUTE", "PART", "STATE", "TRIES", "CHANGED", "DETAIL"]
    show(settings, views, columns, _row, empty="nothing in the outbox")
    if any(view.state in ("failed", "unknown") for view in views):
        click.get_current_context().exit(1)


def _row(view: DeliveryView) -> list[str]:
    changed, detail = local_time(view.updated_at_ms), shortened(view.detail or view.label or view.body)
    return [view.id, view.input_id, view.route, str(view.part), view.state, str(view.attempts), changed, detail]


@outbox.command("show")
@click.argument("delivery_id", metavar="DELIVERY")
@common_options
@pass_settings
def show_delivery(settings: Settings, delivery_id: str) -> None:
    """Tell all of one delivery: where it goes, what became of it, its text."""
    found = read(settings, lambda hf: hf.store.delivery(delivery_id))
    if found is None:
        raise InputError(f"no delivery {delivery_id!r}; `holdfast outbox` lists them")
    if settings.json:
        print_json(found)
        return
    facts = {
        "delivery": found.id, "input": found.input_id, "session": found.session,
        "route": f"{found.channel}:{found.target}", "state": found.state, "tries": str(found.attempts),
        "sent": f"{found.sent_chars} of {len(found.body)} characters", "label": found.label, "detail": found.detail,
    }  # fmt: skip
    for name, value in facts.items():
        if value:
            print_text(f"{name:9} {escape_controls(value)}")
    print_text("\n" + escape_controls(found.body))


@outbox.command()
@ids_argument
@common_options
@pass_settings
def retry(settings: Settings, ids: tuple[str, ...]) -> None:
    """Send what was given up after all, before what came later for its target; labelled if a copy may have arrived."""
    from holdfast.outbox import orders

    _decide(settings, ids, lambda hf, one: orders.retry(hf, one, by=f"holdfast outbox retry ({user_name()})"))


@outbox.command()
@ids_argument
@common_options
@pass_settings
def drop(settings: Settings, ids: tuple[str, ...]) -> None:
    """Never send these. Their inputs keep their answers (`holdfast why`)."""
    from holdfast.outbox import orders

    _decide(settings, ids, lambda hf, one: orders.drop(hf, one, by=f"holdfast outbox drop ({user_name()})"))


def _decide(
    settings: Settings, ids: tuple[str, ...], decide: Callable[[Holdfast, str], Awaitable[OpenDelivery]]
) -> None:
    """One after the other; the first that cannot be done ends it, and says so."""
    import holdfast

    log_plainly()

    async def go() -> list[OpenDelivery]:
        # The ledger alone is written to, so no lock of another program's is needed.
        async with holdfast.open(settings.existing_state(), kind="cli", lock_protocol="none") as hf:
            return [await decide(hf, one) for one in dict.fromkeys(ids)]

    moved = asyncio.run(go())
    if settings.json:
        print_json([{"id": one.id, "state": one.state, "detail": one.detail} for one in moved])
        return
    for one in moved:
        print_text(escape_controls(f"{one.id}: {one.state}, {one.detail}"))
