"""`holdfast sessions`: the conversations, and what is done to one as a whole. It works with and without a gateway."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import exit_codes
from holdfast.cli.cron import write
from holdfast.cli.exit_codes import TryAgainError
from holdfast.cli.lists import limit_option, read, show
from holdfast.cli.output import local_time, log_plainly, print_json, print_table, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.cli.stop import user_name
from holdfast.errors import InputError, UnknownInputError
from holdfast.session.key import parse_key
from holdfast.text import on_one_line

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast
    from holdfast.recovery.upkeep import Done, Pruned
    from holdfast.store.views import ArchiveView, InputView, InUse, SessionView

key_argument = click.argument("session", metavar="SESSION")
prefix_option = click.option("--prefix", default="", metavar="TEXT", help="Only keys that begin with it.")
archived_option = click.option("--archived", is_flag=True, help="Also those of sub-agents that were put away.")
wait_option = click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait so long for its turn."
)


@click.group(invoke_without_command=True)
@prefix_option
@archived_option
@limit_option
@common_options
@pass_settings
@click.pass_context
def sessions(context: click.Context, settings: Settings, prefix: str, archived: bool, limit: int) -> None:
    """List the sessions: title, agent, state, size, who owns it now, what waits, which model answers if it is not the
    usual one, and whose sub-agent's it is.

    With a command: rename, shorten, reset, archive, restore, delete or prune them, or ask where a message would go.
    """
    if context.invoked_subcommand is None:
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
    columns = [
        "SESSION", "TITLE", "AGENT", "STATE", "BYTES", "OWNER", "WAITING", "MODEL", "SUB-AGENT OF", "LAST USED", "FILE",
    ]  # fmt: skip
    show(settings, views, columns, _session, empty="no sessions")


def _session(view: SessionView) -> list[str]:
    owner = f"{view.owner_turn} ({view.owner_lane})" if view.owner_turn else "-"
    used = local_time(view.updated_at_ms)
    return [
        view.key, view.title or "-", parse_key(view.key).agent, _state(view), str(view.size_bytes), owner,
        str(view.queued), _model_of(view), f"{view.parent} ({view.child_state})" if view.parent else "-", used,
        view.path or view.transcript,
    ]  # fmt: skip


def _model_of(view: SessionView) -> str:
    if view.pin is not None and view.pin.holds:
        return f"{view.pin.model} ({view.pin.source} pin: {view.pin.reason})"
    if view.fallback is not None:
        return f"{view.fallback.active} (in place of {view.fallback.selected}: {view.fallback.reason})"
    return "-"


def _state(view: SessionView) -> str:
    state = "running" if view.owner_turn else "waiting" if view.queued else "idle"
    if state == "idle" and view.archived_at_ms is not None:
        state = f"archived {local_time(view.archived_at_ms)}"
    return state if view.home is None else f"{state}, shares {view.home}"


@sessions.command()
@key_argument
@click.argument("title", required=False)
@click.option("--none", "none", is_flag=True, help="Take the title away.")
@common_options
@pass_settings
def rename(settings: Settings, session: str, title: str | None, none: bool) -> None:
    """Give SESSION a TITLE. Metadata: no turn is disturbed, and the conversation gets no fresher by it."""
    if (title is None) != none:
        raise click.UsageError("name a title, or --none")
    write(settings, lambda hf: hf.session(session).rename(title))
    _say(settings, {"session": session, "title": title}, f"{session}: {title or 'no title'}")


@sessions.command(name="read")
@key_argument
@click.option("--by", metavar="NAME", help="Who has read it. Default: you.")
@click.option("--upto", metavar="ENTRY", help="The last entry seen. Default: what is there now.")
@common_options
@pass_settings
def mark_read(settings: Settings, session: str, by: str | None, upto: str | None) -> None:
    """Note that somebody has seen the conversation. Metadata, as a title is."""
    news = write(settings, lambda hf: hf.session(session).mark_read(by=by or user_name(), upto=upto))
    _say(settings, {"session": session, "noted": news}, f"{session}: {'noted' if news else 'was known'}")


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
            raise TryAgainError(f"lane {admission.lane!r} is full ({admission.waiting} waiting); try again later")
        if wait_s > 0:
            return await run_until_settled(hf, config, admission.input_id, timeout_s=wait_s)
        return await hf.input(admission.input_id)


@sessions.command()
@key_argument
@wait_option
@common_options
@pass_settings
def reset(settings: Settings, session: str, wait_s: float) -> None:
    """Begin a new conversation in SESSION, as /new does; what was said stays in its transcript."""
    write(settings, lambda hf: hf.session(session).reset(by=_who("reset"), wait_s=wait_s))
    _say(settings, {"session": session, "result": "reset"}, f"{session}: begins anew")


@sessions.command()
@key_argument
@wait_option
@common_options
@pass_settings
def archive(settings: Settings, session: str, wait_s: float) -> None:
    """Put the transcript of SESSION among the archives; its next message begins a new one.

    The session is owned meanwhile, as by a turn. Exit code 75 while a turn runs, an input waits or an answer has not
    gone out.
    """
    made = write(settings, lambda hf: hf.session(session).archive(by=_who("archive"), wait_s=wait_s))
    _say_archived(settings, session, _settled(session, made))


@sessions.command()
@key_argument
@click.option("--now", is_flag=True, help="For good, with all its archives. What was accepted stays in the ledger.")
@wait_option
@common_options
@pass_settings
def delete(settings: Settings, session: str, now: bool, wait_s: float) -> None:
    """Archive SESSION as deleted; its archive goes when `retention.delete_after_days` are over."""

    async def go(hf: Holdfast) -> tuple[ArchiveView | InUse, list[str]]:
        made = await hf.session(session).archive(by=_who("delete"), why="deleted", wait_s=wait_s)
        gone = [one.id for one in await hf.archives(session=session, limit=-1)] if now else []
        for one in gone if _may_go(made) else ():
            await hf.delete_archive(one)
        return made, gone

    made, gone = write(settings, go)
    if not now:
        _say_archived(settings, session, _settled(session, made))
        return
    if not _may_go(made):
        _settled(session, made)
    _say(settings, {"session": session, "deleted": gone}, f"{session}: deleted with {len(gone)} archive(s)")


@sessions.command()
@click.option("--session", "session", metavar="KEY", help="Only of this session.")
@limit_option
@common_options
@pass_settings
def archives(settings: Settings, session: str | None, limit: int) -> None:
    """List the archives, newest first."""
    views = read(settings, lambda hf: hf.archives(session=session, limit=limit))
    columns = ["ARCHIVE", "SESSION", "TITLE", "WHY", "BY", "BYTES", "ARCHIVED", "FILE"]
    show(settings, views, columns, _archive, empty="no archives")


def _archive(view: ArchiveView) -> list[str]:
    at = local_time(view.at_ms)
    return [view.id, view.session, view.title or "-", view.why, view.by, str(view.bytes), at, f"archives/{view.name}"]


@sessions.command()
@click.argument("archive_id", metavar="ARCHIVE")
@wait_option
@common_options
@pass_settings
def restore(settings: Settings, archive_id: str, wait_s: float) -> None:
    """Bring an archived conversation back into its session. What was said there since is archived in its turn."""

    async def go(hf: Holdfast) -> tuple[str, InUse | None]:
        session = await session_of(hf, archive_id)
        return session, await hf.session(session).restore(archive_id, by=_who("restore"), wait_s=wait_s)

    session, refused = write(settings, go)
    if refused is not None:
        raise TryAgainError(f"{session}: {refused.why}; try again, or --wait SECONDS")
    _say(settings, {"session": session, "restored": archive_id}, f"{session}: restored from {archive_id}")


async def session_of(hf: Holdfast, archive_id: str) -> str:
    """The session of an archive. Raises UnknownInputError."""
    found = [one.session for one in await hf.archives(limit=-1) if one.id == archive_id]
    if not found:
        raise UnknownInputError(f"no archive {archive_id!r}; `holdfast sessions archives` lists them")
    return found[0]


@sessions.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@common_options
@pass_settings
def prune(settings: Settings, dry_run: bool) -> None:
    """Archive and delete what `[retention]` in the configuration asks for, now.

    Never a conversation with an open input, a running turn or an answer that has not gone out. Exit code 1 if the
    limits are still passed afterwards.
    """
    from holdfast.recovery import upkeep

    limits = settings.load().config.retention.limits()
    if dry_run:
        found = read(settings, lambda hf: upkeep.prune(hf, limits, by="", dry_run=True))
    else:
        found = write(settings, lambda hf: upkeep.prune(hf, limits, by=_who("prune"), dry_run=False))
    _say_pruned(settings, found, dry_run=dry_run)
    if found.plan.short_bytes or found.plan.surplus:
        click.get_current_context().exit(1)


def _say_pruned(settings: Settings, found: Pruned, *, dry_run: bool) -> None:
    if settings.json:
        print_json(
            {
                "dry_run": dry_run, "steps": found.done, "freed_bytes": found.freed_bytes,
                "total_bytes": found.plan.total_bytes, "short_bytes": found.plan.short_bytes,
                "surplus": found.plan.surplus,
            }
        )  # fmt: skip
        return
    print_table(
        ["WHAT", "OF", "SESSION", "WHY", "BYTES", "RESULT"],
        [_done(one, dry_run=dry_run) for one in found.done],
        empty="nothing to archive or delete",
    )
    if found.plan.short_bytes:
        print_text(f"{found.plan.short_bytes} bytes over the budget are in use, or were within the last day")
    if found.plan.surplus:
        print_text(f"{found.plan.surplus} conversations over their number are in use, or were within the last day")


def _done(one: Done, *, dry_run: bool) -> list[str]:
    result = "would be done" if dry_run else one.left or "done"
    return [one.step.what, one.step.id, one.session, one.step.why, str(one.step.bytes), result]


@sessions.command()
@click.option("--channel", required=True, metavar="NAME")
@click.option("--kind", type=click.Choice(["direct", "group", "channel"]), default="direct", show_default=True)
@click.option("--peer", required=True, metavar="ID", help="The person, group or channel, by its id there.")
@click.option("--account", default="", metavar="NAME")
@click.option("--thread", metavar="ID")
@click.option("--guild", metavar="ID", help="A Discord server.")
@click.option("--team", metavar="ID", help="A Slack workspace.")
@common_options
@pass_settings
def route(settings: Settings, **where: Any) -> None:
    """Tell to which agent and session something said there would go, by the configuration."""
    from holdfast.inbound.route import Conversation
    from holdfast.inbound.route import route as routed_by

    routed = routed_by(Conversation(**where), settings.load().config.routing())
    if settings.json:
        print_json(routed)
        return
    rows = [("agent", routed.agent), ("session", routed.key), ("shares the transcript of", routed.home)]
    rows += [("by binding", routed.binding or "none"), ("person", routed.person)]
    for name, value in rows:
        if value is not None:
            print_text(f"{name}: {value}")


def _settled(session: str, made: ArchiveView | InUse) -> ArchiveView:
    """The archive. Raises TryAgainError: it is in use. InputError: there is nothing to archive."""
    from holdfast.session.handle import NOTHING
    from holdfast.store.views import InUse

    if not isinstance(made, InUse):
        return made
    if made.why == NOTHING:
        raise InputError(f"{session}: {made.why}")
    raise TryAgainError(f"{session}: {made.why}; try again, or --wait SECONDS")


def _may_go(made: ArchiveView | InUse) -> bool:
    from holdfast.session.handle import NOTHING
    from holdfast.store.views import InUse

    return not isinstance(made, InUse) or made.why == NOTHING


def _say_archived(settings: Settings, session: str, made: ArchiveView) -> None:
    _say(settings, made, f"{session}: archived as {made.id} ({made.bytes} bytes)")


def _say(settings: Settings, value: Any, text: str) -> None:
    if settings.json:
        print_json(value)
    else:
        print_text(on_one_line(text))


def _who(command: str) -> str:
    return f"holdfast sessions {command} ({user_name()})"
