"""`holdfast import`: conversations and configuration of another program."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import exit_codes
from holdfast.cli.output import log_plainly, print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.errors import ConfigError
from holdfast.moving.conversation import Brought, Found, Report
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.moving.openclaw_config import Translated

path_argument = click.argument("path", type=click.Path(path_type=Path))
dry_option = click.option("--dry-run", "dry", is_flag=True, help="Say what would be done; write nothing.")
agent_option = click.option("--agent", default="main", metavar="NAME", help="Whose sessions they become [main].")


@click.group(name="import")
@common_options
def import_() -> None:
    """Bring in the conversations of another program. It is only read: not one byte or time of its files changes.

    Run it again at any time: what is here already stays, what is new over there is added, and a run that was cut off
    goes on.
    """


@dataclass(frozen=True, slots=True)
class _Config:
    """What became of openclaw.json: `written` to where, or why not."""

    written: str | None
    why_not: str | None
    secrets: tuple[tuple[str, str], ...] = ()
    left: tuple[str, ...] = ()


@import_.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--live", is_flag=True, help="This user's own OpenClaw, also while it runs [OPENCLAW_STATE_DIR].")
@click.option("--archives/--no-archives", default=True, help="Earlier conversations that were put away [yes].")
@click.option("--deleted", is_flag=True, help="Those that were thrown away over there, too.")
@click.option("--agent", metavar="NAME", help="An agent of another name [as over there].")
@click.option("--config-to", type=click.Path(path_type=Path), metavar="FILE", help="[STATE/holdfast.toml]")
@click.option("--no-config", is_flag=True, help="Leave openclaw.json alone.")
@dry_option
@common_options
@pass_settings
def openclaw(
    settings: Settings, path: Path | None, live: bool, archives: bool, deleted: bool, agent: str | None,
    config_to: Path | None, no_config: bool, dry: bool,
) -> None:  # fmt: skip
    """OpenClaw: its state directory PATH, a folder of transcripts, or one.

    Transcripts of all formats, the database of newer releases, models that were chosen or put in place of others,
    titles, queues; openclaw.json becomes a holdfast.toml, unless there is one already.
    """
    from holdfast.moving import openclaw_tree

    if live == (path is not None):
        raise click.UsageError("name OpenClaw's state directory, or --live for this user's own")
    where = path if path is not None else openclaw_tree.state_dir(os.environ, Path.home())
    with ExitStack() as copies:
        found = openclaw_tree.look(where, openclaw_tree.Wanted(archives, deleted, agent, live), copies)
        report = _bring(settings, found, str(where), dry)
    named = os.environ.get("OPENCLAW_CONFIG_PATH", "").strip() if live else ""
    config_file = Path(named) if named else where / "openclaw.json"
    config = None
    if not no_config and config_file.is_file():
        config = _translate(config_file, config_to or settings.node_dir / "holdfast.toml", dry)
    _tell(settings, report, config)


@import_.command()
@path_argument
@agent_option
@dry_option
@common_options
@pass_settings
def nanobot(settings: Settings, path: Path, agent: str, dry: bool) -> None:
    """nanobot: its home PATH (~/.nanobot), a workspace of an older release, or a folder of its sessions."""
    from holdfast.moving import plain

    _tell(settings, _bring(settings, plain.look_at_nanobot(path, agent=agent), str(path), dry))


@import_.command()
@path_argument
@agent_option
@dry_option
@common_options
@pass_settings
def hermes(settings: Settings, path: Path, agent: str, dry: bool) -> None:
    """hermes-agent: its home PATH, or its database state.db."""
    from holdfast.moving import plain

    with ExitStack() as copies:
        report = _bring(settings, plain.look_at_hermes(path, agent=agent, copies=copies), str(path), dry)
    _tell(settings, report)


@import_.command()
@path_argument
@click.option("--session", metavar="KEY", help="The session that one file becomes [agent:NAME:imported:FILE].")
@agent_option
@dry_option
@common_options
@pass_settings
def jsonl(settings: Settings, path: Path, session: str | None, agent: str, dry: bool) -> None:
    """Chat messages as JSON lines: a file PATH, or a folder of them.

    A message on each line ({"role": …, "content": …}), a list of them ({"messages": […]}), or a transcript.
    """
    from holdfast.moving import plain

    _tell(settings, _bring(settings, plain.look_at_jsonl(path, session=session, agent=agent), str(path), dry))


# ── doing it ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _bring(settings: Settings, found: Found, source: str, dry: bool) -> Report:
    """What is written to is opened as any program does it; a dry run only looks at it."""
    import holdfast
    from holdfast.moving.bringing import bring_in

    if not dry:
        settings.stand_beside_openclaw()
    log_plainly()

    async def bring() -> Report:
        with _progress(settings) as progress:
            if not dry:
                async with holdfast.open(settings.state, kind="cli", **settings.lock_terms()) as hf:
                    return await bring_in(hf, found, source, dry=False, progress=progress)
            if settings.state_dir is not None and not settings.state_dir.exists():
                return await bring_in(None, found, source, dry=True, progress=progress)
            async with holdfast.open_reader(settings.state) as hf:
                return await bring_in(hf, found, source, dry=True, progress=progress)

    return asyncio.run(bring())


@contextmanager
def _progress(settings: Settings) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for people who watch; nothing for programs."""
    if settings.json or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        bar = shown.add_task("", total=None)
        yield lambda key, done, total: shown.update(
            bar, description=on_one_line(key)[-40:], completed=done, total=max(total, 1)
        )


def _translate(file: Path, target: Path, dry: bool) -> _Config:
    """openclaw.json into a file that is not there yet. What our configuration refuses is left out and named."""
    from holdfast.moving import openclaw_config, quietly
    from holdfast.moving.toml_text import as_toml

    said = openclaw_config.read_json5(quietly.read_all(file).decode("utf-8-sig"))
    found = openclaw_config.translate(said)
    tables, refused = _without_faults(found)
    left = (*found.left, *refused)
    text = as_toml(tables, head=f"Made of {file} by `holdfast import openclaw`.")
    if target.exists():
        same = target.read_bytes() == text.encode()
        why = "" if same else ", and says something else; --config-to names another"
        return _Config(None, f"{target} is there already{why}", found.secrets, left)
    if dry:
        return _Config(None, f"{target} would be written", found.secrets, left)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as out:
        out.write(text.encode())
    return _Config(str(target), None, found.secrets, left)


def _without_faults(found: Translated) -> tuple[dict[str, Any], list[str]]:
    """The tables without what `config check` would refuse, and that, with the reasons."""
    from holdfast.config import read_config
    from holdfast.moving.toml_text import as_toml

    tables, refused = found.tables, list[str]()
    with tempfile.TemporaryDirectory(prefix="holdfast-import-") as folder:
        draft = Path(folder) / "holdfast.toml"
        while True:
            draft.write_text(as_toml(tables), encoding="utf-8")
            try:
                read_config(draft, {})
            except ConfigError as exc:
                gone = [fault for fault in exc.faults if _take_away(tables, fault.partition(":")[0].split("."))]
                refused += [f"{fault} (left out)" for fault in gone]
                if not gone:
                    return tables, refused
            else:
                return tables, refused


def _take_away(tables: dict[str, Any], path: list[str]) -> bool:
    """Remove a setting, or the table that holds it where its name is not there."""
    for length in range(len(path), 0, -1):
        at: Any = tables
        for name in path[: length - 1]:
            at = at.get(name) if isinstance(at, dict) else None
        if isinstance(at, dict) and path[length - 1] in at:
            del at[path[length - 1]]
            return True
    return False


# ── telling of it ────────────────────────────────────────────────────────────────────────────────────────────────────


def _tell(settings: Settings, report: Report, config: _Config | None = None) -> None:
    if settings.json:
        print_json({**asdict(report), "config": None if config is None else asdict(config)})
    else:
        _print(settings, report, config)
    if report.has_findings:
        sys.exit(exit_codes.FAILED)


def _print(settings: Settings, report: Report, config: _Config | None) -> None:
    for one in report.conversations:
        print_text(on_one_line(f"{one.state:9}  {one.key}  {_counts(one)}"))
        for remark in (*one.remarks, *(f"mended: {what}" for what in one.mended), *one.bad):
            print_text(on_one_line(f"           {remark}"))
    for remark in report.remarks:
        print_text(on_one_line(f"left       {remark}"))
    states = [one.state for one in report.conversations]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none"
    lines, size = sum(one.lines for one in report.conversations), sum(one.bytes for one in report.conversations)
    done = "would be written" if report.dry else "written"
    print_text(on_one_line(f"{len(states)} conversations of {report.source} ({counted}): {lines:,} lines, {size:,} "
                           f"bytes {done} to {settings.state}"))  # fmt: skip
    if config is not None:
        _print_config(config)


def _print_config(config: _Config) -> None:
    print_text(on_one_line(f"configuration: {config.written or config.why_not}"))
    for variable, place in config.secrets:
        print_text(on_one_line(f"  set the variable {variable} to the value of {place}: secrets are not copied"))
    for path in config.left:
        print_text(on_one_line(f"  no counterpart: {path}"))


def _counts(one: Brought) -> str:
    pin = f", model {one.pin}" if one.pin else ""
    if one.state in ("new", "continued"):
        return f"{one.lines:,} lines, {one.bytes:,} bytes{pin}"
    return f"{one.there:,} lines{pin}"
