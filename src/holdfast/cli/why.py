"""`holdfast why`: what became of an input, and why."""

from __future__ import annotations

import click

from holdfast.cli.lists import read
from holdfast.cli.output import local_time, print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.text import escape_controls, on_one_line


@click.command()
@click.argument("target", metavar="ID")
@common_options
@pass_settings
def why(settings: Settings, target: str) -> None:
    """Tell what became of an input, a turn or a session's newest input, step by step.

    ID is an input (in_…), a turn (turn_…) or a session key. The end of each line says where it can be checked.
    """
    report = read(settings, lambda hf: hf.why(target))
    if settings.json:
        print_json(report)
        return
    print_text(escape_controls(f"{report.kind} {report.id} of {report.session}: {report.state}"))
    for line in report.lines:
        text = on_one_line(line.text)
        print_text(f"  {local_time(line.at_ms)}  {text}  [{escape_controls(line.evidence)}]")
