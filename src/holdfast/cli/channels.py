"""`holdfast channels`: who listens to which platform, how that goes, and what was turned away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holdfast.cli.lists import read
from holdfast.cli.output import local_time, print_json, print_table, shortened
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.inbound.admitting import ChannelKind
    from holdfast.kernel import Holdfast

AWAY_MAX = 1000


@click.command()
@click.option("--turned-away", is_flag=True, help="What was not taken, and why.")
@common_options
@pass_settings
def channels(settings: Settings, turned_away: bool) -> None:
    """List the channels: who listens, and how that goes.

    Exit code 1 if somebody has to see to one: its platform refuses us, or nobody listens.
    """
    from holdfast.inbound.admitting import shown_channels

    kinds = _kinds(settings)

    async def look(hf: Holdfast) -> list[dict[str, Any]]:
        return shown_channels(kinds, await hf.store.listeners(), await hf.store.turned_away(limit=AWAY_MAX))

    found = read(settings, look)
    if settings.json:
        print_json(found)
    elif turned_away:
        _show_turned_away(found)
    else:
        rows = [_row(one) for one in found]
        print_table(["CHANNEL", "KIND", "STATE", "SINCE", "TURNED AWAY", "DETAIL"], rows, empty="no channels")
    if any(one["state"] in ("refused", "nobody listens") for one in found):
        click.get_current_context().exit(1)


def _row(one: dict[str, Any]) -> list[str]:
    since = local_time(one["since_ms"]) if one["since_ms"] else "-"
    times = sum(away["times"] for away in one["turned_away"])
    return [one["channel"], one["kind"] or "-", one["state"], since, str(times), shortened(one["detail"] or "-")]


def _kinds(settings: Settings) -> dict[str, ChannelKind]:
    """The channels of the configuration. Adapters are not loaded: that needs their secrets."""
    from holdfast.inbound.admitting import ChannelKind

    return {
        name: ChannelKind(own.kind or name, listens=own.listens(name), is_called=not own.listens(name))
        for name, own in settings.load().config.platforms().items()
        if own.enabled
    }


def _show_turned_away(found: list[dict[str, Any]]) -> None:
    from holdfast.channel.gate import REASONS

    rows: list[list[str]] = []
    for one in found:
        for away in one["turned_away"]:
            why = REASONS.get(str(away["reason"]), "-")
            where, sender = on_one_line(away["peer"]) or "-", on_one_line(away["sender"]) or "-"
            rows.append([one["channel"], str(away["times"]), where, sender, local_time(away["last_at_ms"]), why])
    print_table(["CHANNEL", "TIMES", "WHERE", "SENDER", "LAST", "WHY"], rows, empty="nothing was turned away")
