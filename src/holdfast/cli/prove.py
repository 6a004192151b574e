"""`holdfast prove`: races, kills and torn writes against this machine's own disk, with a verdict per promise."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from holdfast.cli import exit_codes
from holdfast.cli.output import print_json, print_table, print_text
from holdfast.cli.settings import Seconds, Settings, common_options, pass_settings
from holdfast.errors import InputError

if TYPE_CHECKING:
    from holdfast.testing.prove.trial import Result

SHOWN_MAX = 5
"""So many of a promise's breaches are printed; --json has all."""


@click.command()
@click.option("--seconds", type=Seconds(min=10.0), default=60.0, show_default=True, help="How long it may take.")
@click.option("--keep", is_flag=True, help="Leave the folder of the trial behind.")
@common_options
@pass_settings
def prove(settings: Settings, seconds: float, keep: bool) -> int:
    """Try to break the promises on this machine: its disk, its file system, its locks.

    Works in a fresh folder on the disk of --state (beside it if that is a state, which is never touched), removed
    afterwards. First the file system is asked whether it can keep what the promises stand on; then processes
    are killed at each disk call, and each call fails once; then a storm of kills, stops and foreign edits comes down on
    thirteen processes that share a state. Exit code 1: a promise broke, or cannot hold here.
    """
    from holdfast.testing.prove.trial import Trial

    if settings.state_dir is None:
        raise InputError("prove tries a disk; give a folder with --state")
    if settings.json or not sys.stderr.isatty():
        result = Trial(settings.state_dir, seconds, keep=keep).run()
    else:
        result = _run_showing(settings, seconds, keep=keep)
    if settings.json:
        print_json(result.as_json())
    else:
        show(result)
    return exit_codes.DONE if result.holds else exit_codes.FAILED


def _run_showing(settings: Settings, seconds: float, *, keep: bool) -> Result:
    """With a bar per phase on the terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from holdfast.testing.prove.trial import Trial

    assert settings.state_dir is not None
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
    )
    shown = Progress(*columns, console=Console(stderr=True), auto_refresh=False)  # a thread of its own would be forked
    bars = {phase: shown.add_task(phase, total=1.0, words="") for phase in ("ground", "disk calls", "storm")}

    def progress(phase: str, done: float, words: str) -> None:
        shown.update(bars[phase], completed=done, words=words)
        shown.refresh()

    with shown:
        result = Trial(settings.state_dir, seconds, keep=keep, progress=progress).run()
        for phase in bars:
            shown.update(bars[phase], completed=1.0)
        shown.refresh()
    return result


def show(result: Result) -> None:
    """The table: promise, what was tried, verdict; then what was noticed."""
    rows = [[f"{one.promise} {one.text}", "; ".join(one.tried) or "-", one.verdict] for one in result.promises]
    print_table(["promise", "tried", "verdict"], rows, empty="")
    print_text(f"\n{result.folder} ({result.file_system or 'unknown file system'}), {result.seconds:g} s")
    for finding in result.ground:
        concerns = f" ({', '.join(finding.promises)})" if finding.promises else ""
        print_text(f"{'cannot hold' if finding.level == 'broken' else 'remark'}{concerns}: {finding.text}")
    for remark in result.remarks:
        print_text(f"remark: {remark}")
    for one in result.promises:
        for text in one.broken[:SHOWN_MAX]:
            print_text(f"broken: {text}")
        if len(one.broken) > SHOWN_MAX:
            print_text(f"broken: … and {len(one.broken) - SHOWN_MAX} more of {one.promise} (--json has all)")
    if not result.holds:
        print_text("Run it again with --keep and --json, and send both along with a report.")
