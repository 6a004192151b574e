"""`holdfast usage`: tokens and money."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from holdfast.cli.lists import read, session_option
from holdfast.cli.output import print_json, print_table, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.text import escape_controls

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.model.usage import Used
    from holdfast.observe.usage import By, UsageReport


@click.command()
@click.option(
    "--by",
    type=click.Choice(["day", "session", "agent", "model", "lane"]),
    help="Sum up by. Without it: all in one.",
)
@click.option(
    "--since", "since_text", default="30d", show_default=True, metavar="WHEN",
    help="7d, 12h, today, month, or a date.",
)  # fmt: skip
@session_option
@click.option("--agent", metavar="NAME", help="Only of this agent.")
@click.option("--timezone", metavar="ZONE", help="Whose days they are, such as Europe/Berlin. Unset: this machine's.")
@common_options
@pass_settings
def usage(
    settings: Settings, by: By | None, since_text: str, session: str | None, agent: str | None, timezone: str | None
) -> None:
    """Tell what models have used: calls, tokens, money.

    Calls that failed and calls for summaries count, too. Money is what is known: calls of models without a price are
    counted beside it.
    """
    from holdfast.clock import epoch_ms
    from holdfast.inbound.schedule import zone_of
    from holdfast.observe.usage import as_json, report, since

    zone, now = zone_of(timezone) if timezone is not None else None, datetime.now(UTC)
    since_ms, until_ms = since(since_text, now, zone), epoch_ms(now) + 1

    async def ask(hf: Holdfast) -> UsageReport:
        rows = await hf.store.usage(since_ms=since_ms, until_ms=until_ms, session=session, agent=agent)
        return report(rows, by=by, since_ms=since_ms, until_ms=until_ms, zone=zone)

    found = read(settings, ask)
    if settings.json:
        print_json(as_json(found))
        return
    name = (by or "").upper()
    columns = [name or "ALL", "CALLS", "NO ANSWER", "IN", "CACHED", "WRITTEN", "OUT", "COST"]
    lines = [(escape_controls(line.name), line.used) for line in found.lines]
    print_table(columns, [_row(*line) for line in [*lines, ("total", found.total)]], empty="nothing used")
    if found.total.guessed:
        print_text(f"Of {found.total.guessed:,} calls nobody has told the tokens; they are in here as guessed.")


def _row(name: str, used: Used) -> list[str]:
    from holdfast.model.usage import cost_in_words

    tokens = used.tokens
    counts = (used.calls, used.failed, tokens.read, tokens.cache_read, tokens.cache_write, tokens.output)
    return [name, *(f"{count:,}" for count in counts), cost_in_words(used)]
