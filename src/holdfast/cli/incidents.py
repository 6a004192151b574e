"""`holdfast incidents`: what went wrong in the field, replayed against this release, and what a log tells of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from holdfast.cli import exit_codes
from holdfast.cli.output import print_text, shortened
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.text import escape_controls


@click.group()
@common_options
def incidents() -> None:
    """Replay written-down incidents (docs/incidents.md), or read from logs what happened (docs/reports.md)."""


@incidents.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this incident; may be given several times.")
@click.option("--backend", type=click.Choice(["embedded", "postgres"]), default="embedded", show_default=True)
@click.option("--server", metavar="URL", help="Of --backend postgres: where to make databases, one for each scenario.")
@common_options
@pass_settings
def replay(settings: Settings, file: Path, ids: tuple[str, ...], backend: str, server: str | None) -> int:
    """Run the scenarios of FILE, each in a fresh state of its own; --state is not touched.

    Exit code 0: none failed (passed, or waiting for a feature that is named); 1: one failed; 2: FILE is not understood.
    """
    from holdfast.testing.incidents import runner
    from holdfast.testing.incidents.scenario import ScenarioError

    counts: Counter[tuple[str, str]] = Counter()
    try:
        for result in runner.replay(file, ids or None, backend=backend, server=server):
            counts[result.family, result.status] += 1
            if settings.json:
                print_text(result.line())
            else:
                why = result.reason or (f"{result.first_failed}: {result.seen}" if result.first_failed else "")
                print_text(escape_controls(f"{result.status:14} {result.id:16} {shortened(why, 200)}".rstrip()))
    except ScenarioError as wrong:
        raise click.UsageError(str(wrong)) from wrong
    if not settings.json:
        for line in family_table(counts):
            print_text(line)
    failed = sum(count for (_, status), count in counts.items() if status == "failed")
    return exit_codes.FAILED if failed else exit_codes.DONE


@incidents.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--journal", "journal_of", is_flag=True, help="Read the system's journal, by journalctl.")
@click.option("--unit", "units", multiple=True, metavar="NAME", help="Of --journal only this unit (also a user's).")
@click.option(
    "--since", metavar="TIME", help='Of --journal only what came later, as journalctl reads it: "2 days ago".'
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as a page, too.")
@common_options
@pass_settings
def report(
    settings: Settings, files: tuple[Path, ...], journal_of: bool, units: tuple[str, ...], since: str | None,
    html: Path | None,
) -> int:  # fmt: skip
    """Read logs of Holdfast or OpenClaw (text, JSON lines, a journal's export; gzip; "-" is standard input) and tell
    of takeovers, lock timeouts, walks down a chain of models, pins, sessions that stood still and recoveries.

    Exit code 0: nothing to look at; 1: something was found.
    """
    from holdfast.cli import log_report

    return log_report.run(files, log_report.journal_arguments(journal_of, units, since), html, as_json=settings.json)


def family_table(counts: Counter[tuple[str, str]]) -> list[str]:
    """Passed, failed, waiting and not applicable per family, and in all."""
    statuses = ("passed", "failed", "waiting", "not_applicable")
    lines = [f"{'family':32} {'passed':>7} {'failed':>7} {'waiting':>8} {'n/a':>4}"]
    families = [*dict.fromkeys(family for family, _ in counts), "all"]
    for family in families:
        row = [
            sum(count for (one, status), count in counts.items() if status == wanted and family in (one, "all"))
            for wanted in statuses
        ]
        lines.append(f"{family:32} {row[0]:>7} {row[1]:>7} {row[2]:>8} {row[3]:>4}")
    return lines
