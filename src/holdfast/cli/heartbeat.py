"""`holdfast heartbeat`: what the heartbeats are at, and waking one. Works with and without a gateway."""

from __future__ import annotations

import click

from holdfast.cli.cron import show_runs, write
from holdfast.cli.lists import read
from holdfast.cli.output import local_time, print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.inbound.timer import Timer

agent_option = click.option("--agent", default="main", show_default=True, help="Whose heartbeat.")


@click.group()
@common_options
def heartbeat() -> None:
    """An agent's regular look at whether anything needs attention ([heartbeat] in holdfast.toml)."""


@heartbeat.command()
@click.option(
    "--runs", "count", type=click.IntRange(0, 2000), default=10, show_default=True, help="Runs shown of each."
)
@common_options
@pass_settings
def status(settings: Settings, count: int) -> None:
    """Show the heartbeats, their next times, and their last runs and skips with the reason."""
    timers = read(settings, lambda hf: hf.store.timers(kind="heartbeat"))
    found = {
        timer.id: read(settings, lambda hf, of=timer.id: hf.store.timer_runs(timer=of, limit=count)) if count else []
        for timer in timers
    }
    if settings.json:
        import msgspec

        print_json([msgspec.to_builtins(timer) | {"runs": found[timer.id]} for timer in timers])
        return
    if not timers:
        print_text("no heartbeats; set `every` under [heartbeat] in holdfast.toml and start a gateway")
    for timer in timers:
        print_text(f"heartbeat {timer.name}: {_in_words(timer)}")
        if found[timer.id]:
            show_runs(settings, found[timer.id])


def _in_words(timer: Timer) -> str:
    from holdfast.inbound.schedule import in_words_ms

    where = "isolated" if timer.spec.get("isolated", True) else "in the conversation"
    pace = f"every {in_words_ms(timer.spec['every_ms'])}, {where}, for {timer.spec['session']}"
    return f"{pace}; next at {local_time(timer.next_at_ms)}" if timer.state == "active" else f"{pace}; {timer.state}"


@heartbeat.command()
@click.argument("text", default="")
@agent_option
@click.option("--mode", type=click.Choice(["now", "next"]), default="now", show_default=True,
              help="At once, or together with the next regular one.")  # fmt: skip
@click.option("--reason", default="manual", show_default=True, help="What woke it, for people and for its limits.")
@common_options
@pass_settings
def wake(settings: Settings, text: str, agent: str, mode: str, reason: str) -> None:
    """Wake a heartbeat, and tell it TEXT. It is stored; whichever gateway looks first runs it, within a second."""
    from holdfast.inbound import orders

    new = write(settings, lambda hf: orders.wake(hf, agent, reason=reason, text=text, mode=mode))
    if settings.json:
        print_json({"agent": agent, "mode": mode, "reason": reason, "stored": new})
    else:
        print_text(f"heartbeat {agent}: {'will be told at its next run' if mode == 'next' else 'woken'}")


@heartbeat.command()
@agent_option
@common_options
@pass_settings
def pause(settings: Settings, agent: str) -> None:
    """Let a heartbeat run no more until it is resumed."""
    from holdfast.inbound import orders

    _tell(settings, write(settings, lambda hf: orders.pause(hf, f"heartbeat:{agent}")))


@heartbeat.command()
@agent_option
@common_options
@pass_settings
def resume(settings: Settings, agent: str) -> None:
    """Let it run again."""
    from holdfast.inbound import orders

    _tell(settings, write(settings, lambda hf: orders.resume(hf, f"heartbeat:{agent}")))


def _tell(settings: Settings, timer: Timer) -> None:
    if settings.json:
        print_json(timer)
    else:
        print_text(f"heartbeat {timer.name}: {timer.state}")
