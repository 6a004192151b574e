"""`holdfast cron`: jobs at fixed times. They are rows in the state, so all of it works with and without a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from holdfast.cli import exit_codes
from holdfast.cli.lists import limit_option, read, show
from holdfast.cli.output import local_time, log_plainly, print_json, print_text, shortened
from holdfast.cli.settings import Seconds, Settings, common_options, pass_settings

if TYPE_CHECKING:
    from holdfast.inbound.timer import Timer, TimerRun
    from holdfast.kernel import Holdfast

T = TypeVar("T")
name_argument = click.argument("name", metavar="JOB")


def write(settings: Settings, ask: Callable[[Holdfast], Awaitable[T]], *, make: bool = False) -> T:
    """What `ask` does to the state. Raises InputError where there is none, unless it is to be made."""
    import holdfast

    log_plainly()

    async def go() -> T:
        where = settings.state if make else settings.existing_state()
        # The ledger alone is written to, so no lock of another program's is needed.
        async with holdfast.open(where, kind="cli", lock_protocol="none") as hf:
            return await ask(hf)

    return asyncio.run(go())


@click.group()
@common_options
def cron() -> None:
    """Jobs at fixed times: add, list, run, pause, and see what their runs have come to.

    Jobs in holdfast.toml ([cron.jobs.NAME]) are listed here, too; a gateway brings them into the state when it starts.
    """


@cron.command()
@name_argument
@click.argument("message")
@click.option("--at", metavar="TIME", help="Once: an ISO time (UTC unless it says otherwise), or a pause such as 20m.")
@click.option("--every", metavar="PAUSE", help="Again and again: 30s, 20m, 2h, 1d.")
@click.option("--cron", "expression", metavar="FIELDS", help='Five fields, or six with seconds: "30 7 * * MON-FRI".')
@click.option("--timezone", default="UTC", show_default=True, metavar="ZONE", help="IANA name, of --cron and --at.")
@click.option(
    "--exact", is_flag=True, help="At the very minute: jobs at the top of the hour are spread over 5 minutes."
)
@click.option("--stagger", "stagger_s", type=click.IntRange(0, 3600), metavar="SECONDS", help="Spread by this instead.")
@click.option("--agent", default="main", show_default=True)
@click.option("--target", default="isolated", show_default=True, metavar="isolated|main|current|session:KEY")
@click.option("--session", metavar="KEY", help="With --target current: the session it is bound to.")
@click.option("--model", metavar="PROVIDER/MODEL")
@click.option("--wake", type=click.Choice(["now", "next-heartbeat"]), default="now", show_default=True)
@click.option("--deliver", type=click.Choice(["announce", "webhook", "none"]), default="announce", show_default=True)
@click.option("--to", default="last", show_default=True, metavar="last|CHANNEL:TARGET", help="Where it is announced.")
@click.option("--url", help="Of --deliver webhook: where the answer is posted to.")
@click.option("--failure-to", metavar="CHANNEL:TARGET", help="Where failures are told [as --to].")
@click.option("--timeout", "timeout_s", type=click.IntRange(min=1), default=3600, show_default=True, metavar="SECONDS")
@click.option("--silence", "silence_s", type=click.IntRange(min=1), metavar="SECONDS",
              help="How long its model may say nothing before a run ends.")  # fmt: skip
@common_options
@pass_settings
def add(
    settings: Settings, name: str, message: str, expression: str | None, exact: bool, stagger_s: int | None,
    target: str, session: str | None, **facts: Any,
) -> None:  # fmt: skip
    """Add a job that says MESSAGE at its times. Give one of --at, --every and --cron."""
    from holdfast.inbound import orders
    from holdfast.inbound.cron import JobDefinition

    if (target == "current") != (session is not None):
        raise click.UsageError("--target current and --session KEY go together")
    job = JobDefinition(
        name, message, cron=expression, stagger_s=0 if exact else stagger_s,
        target=f"session:{session}" if session is not None else target, **facts,
    )  # fmt: skip
    timer = write(settings, lambda hf: orders.add_job(hf, job), make=True)
    _tell(settings, timer, f"added; next at {local_time(timer.next_at_ms)}")


@cron.command("list")
@common_options
@pass_settings
def list_jobs(settings: Settings) -> None:
    """List the jobs: schedule, state, next time, failures in a row."""
    timers = read(settings, lambda hf: hf.store.timers(kind="cron"))
    if settings.json:
        from holdfast.inbound.timer import shown_timer

        print_json([shown_timer(timer) for timer in timers])
        return
    columns = ["JOB", "SCHEDULE", "STATE", "NEXT", "FAILURES", "TARGET", "DELIVERY", "DETAIL"]
    show(settings, timers, columns, _row, empty="no cron jobs; `holdfast cron add` makes one")


def _row(timer: Timer) -> list[str]:
    from holdfast.inbound.cron import job_of, when_of

    job = job_of(timer)
    deliver = f"announce {job.to}" if job.deliver == "announce" else job.deliver
    next_at = local_time(timer.next_at_ms) if timer.state == "active" else ""
    return [timer.name, when_of(timer).in_words(), timer.state, next_at, str(timer.failures), job.target, deliver,
            shortened(timer.detail or "")]  # fmt: skip


@cron.command()
@name_argument
@click.option("--wait", "wait_s", type=Seconds(min=0), default=0.0, metavar="SECONDS",
              help="Wait so long for the end of the run; without a gateway it runs in this very process.")  # fmt: skip
@common_options
@pass_settings
def run(settings: Settings, name: str, wait_s: float) -> int:
    """Run a job now, whatever its schedule and state say. Exit code 75: it goes on after --wait."""
    settings.stand_beside_openclaw()
    done = asyncio.run(_run(settings, name, wait_s))
    if settings.json:
        print_json(done)
    else:
        print_text(f"cron {name}: run {done['id']}, input {done['input_id']}: {done['input_state']}")
        if done["answer"]:
            print_text(done["answer"])
    if wait_s <= 0 or done["input_state"] == "answered":
        return exit_codes.DONE
    return exit_codes.TRY_AGAIN if done["input_state"] in ("queued", "running") else exit_codes.FAILED


async def _run(settings: Settings, name: str, wait_s: float) -> dict[str, Any]:
    import msgspec

    from holdfast.gateway.app import open_handle, run_until_settled
    from holdfast.inbound import orders

    config = settings.load().config
    log_plainly()
    async with open_handle(config, settings.existing_state(), kind="cli") as hf:
        begun = await orders.run_now(hf, f"cron:{name}")
        input_id = begun.input_id or ""
        view = await hf.input(input_id)
        if wait_s > 0:
            view = await run_until_settled(hf, config, input_id, timeout_s=wait_s)
        return msgspec.to_builtins(begun) | {"input_state": view.state, "answer": view.answer}


@cron.command()
@click.argument("name", metavar="JOB", required=False)
@limit_option
@common_options
@pass_settings
def runs(settings: Settings, name: str | None, limit: int) -> None:
    """List runs, newest first: of JOB, or of all timers. What came of the work and of its delivery are two columns."""
    timer = f"cron:{name}" if name else None
    show_runs(settings, read(settings, lambda hf: hf.store.timer_runs(timer=timer, limit=limit)))


def show_runs(settings: Settings, found: list[TimerRun]) -> None:
    columns = ["TIMER", "DUE", "WHY", "STATE", "DELIVERY", "ENDED", "INPUT", "DETAIL"]
    show(settings, found, columns, _run_row, empty="no runs yet")


def _run_row(one: TimerRun) -> list[str]:
    due, ended = local_time(one.scheduled_at_ms), local_time(one.ended_at_ms)
    row = [one.timer, due, one.reason, one.state, one.delivery, ended]
    return [*row, one.input_id or "-", shortened(one.detail or "")]


@cron.command()
@name_argument
@common_options
@pass_settings
def pause(settings: Settings, name: str) -> None:
    """Let a job fire no more until it is resumed; a run that goes on is not touched."""
    from holdfast.inbound import orders

    _tell(settings, write(settings, lambda hf: orders.pause(hf, f"cron:{name}")), "paused")


@cron.command()
@name_argument
@common_options
@pass_settings
def resume(settings: Settings, name: str) -> None:
    """Let a paused or stopped job fire again, from its next time on."""
    from holdfast.inbound import orders

    timer = write(settings, lambda hf: orders.resume(hf, f"cron:{name}"))
    _tell(settings, timer, f"active; next at {local_time(timer.next_at_ms) or 'no time: it lies in the past'}")


@cron.command()
@name_argument
@common_options
@pass_settings
def remove(settings: Settings, name: str) -> None:
    """Remove a job. Its runs stay in the list; one of holdfast.toml comes back when a gateway starts."""
    from holdfast.inbound import orders

    timer = write(settings, lambda hf: orders.change(hf, f"cron:{name}", lambda _: None))
    again = "; it stands in holdfast.toml, too: remove it there" if timer.source == "config" else ""
    _tell(settings, timer, f"removed{again}")


def _tell(settings: Settings, timer: Timer, what: str) -> None:
    if settings.json:
        from holdfast.inbound.timer import shown_timer

        print_json(shown_timer(timer))
    else:
        print_text(f"cron {timer.name}: {what}")
