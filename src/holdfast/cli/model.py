"""`holdfast model`: which models are left alone and why, which sessions have a model of their own; choosing one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click
import msgspec

from holdfast.cli.lists import read
from holdfast.cli.output import local_time, log_plainly, print_json, print_table, print_text
from holdfast.cli.settings import Seconds, Settings, common_options, pass_settings
from holdfast.cli.stop import user_name
from holdfast.errors import InputError, ProviderError
from holdfast.model.cooldown import Cooldown, left_s
from holdfast.model.policy import ModelsNow, Pin
from holdfast.text import escape_controls

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast


@click.group()
@common_options
def model() -> None:
    """Cool-downs of models, and models of sessions."""


@model.command()
@common_options
@pass_settings
def status(settings: Settings) -> None:
    """Tell which models are in a cool-down, which sessions are pinned, which are answered by another model than theirs.

    Exit code 1 if a model is in a cool-down.
    """
    known = read(settings, lambda hf: hf.models())
    now_ms = int(time.time() * 1000)
    resting = [row for row in known.cooldowns if left_s(row, now_ms) > 0]
    if settings.json:
        cooldowns = [{**msgspec.to_builtins(row), "left_s": left_s(row, now_ms)} for row in resting]
        print_json({"cooldowns": cooldowns, "pins": known.pins, "fallbacks": known.fallbacks})
    else:
        _show(known, resting, now_ms)
    if resting:
        click.get_current_context().exit(1)


def _show(known: ModelsNow, resting: list[Cooldown], now_ms: int) -> None:
    rows = [["cool-down", *_cooldown(row, now_ms)] for row in resting]
    rows += [["pin", *_pin(pin)] for pin in known.pins]
    rows += [
        ["fallback", one.session, f"{one.active} in place of {one.selected}", one.reason, local_time(one.since_ms)]
        for one in known.fallbacks
    ]
    print_table(["WHAT", "OF", "MODEL", "WHY", "TIME"], rows, empty="every model may be asked; no session is pinned")


def _cooldown(row: Cooldown, now_ms: int) -> list[str]:
    of = row.provider + (f" (key {row.label})" if row.label else "")
    failures = f"{row.errors} failure{'s' if row.errors > 1 else ''} in a row"
    ends = f"{left_s(row, now_ms):.0f} s left, until {local_time(row.until_ms)}"
    return [of, row.model or "every model", f"{row.reason}, {failures}", ends]


def _pin(pin: Pin) -> list[str]:
    key = f" (key {pin.credential})" if pin.credential else ""
    why = f"{pin.source}: {pin.reason}" + (f", in place of {pin.origin}" if pin.origin else f", by {pin.by}")
    until = f"until {local_time(pin.expires_at_ms)}" if pin.expires_at_ms is not None else "until it is taken away"
    return [pin.session, pin.model + key, why, until]


@model.command()
@click.argument("session")
@click.argument("model_ref", metavar="MODEL")
@click.option("--for", "seconds", type=Seconds(min=1), metavar="SECONDS", help="How long. Default: for good.")
@click.option("--key", "key", default="", metavar="NAME", help="Use this key of the provider and no other.")
@common_options
@pass_settings
def pin(settings: Settings, session: str, model_ref: str, seconds: float | None, key: str) -> None:
    """Let a session's turns ask MODEL (provider/model) or none.

    Your choice is exact: no other model answers, and no failure changes it. It counts from the next model call on, also
    in a turn that is running now.
    """
    _check(settings, model_ref, key)
    by = f"holdfast model pin ({user_name()})"
    before = _choose(settings, lambda hf: hf.pin_model(session, model_ref, by=by, expires_in_s=seconds, credential=key))
    if settings.json:
        print_json({"session": session, "model": model_ref, "before": before})
    else:
        print_text(escape_controls(f"{session}: {model_ref}" + (f" (was {before.model})" if before else "")))


@model.command()
@click.argument("session")
@common_options
@pass_settings
def unpin(settings: Settings, session: str) -> None:
    """Take a session's pin away, whoever set it. Exit code 1 if it had none."""
    before = _choose(settings, lambda hf: hf.unpin_model(session))
    if settings.json:
        print_json({"session": session, "before": before})
    else:
        print_text(escape_controls(f"{session}: " + (f"no longer {before.model}" if before else "was not pinned")))
    if before is None:
        click.get_current_context().exit(1)


def _choose(settings: Settings, act: Callable[[Holdfast], Awaitable[Pin | None]]) -> Pin | None:
    """Change a pin; returns what it was."""
    import holdfast

    log_plainly()

    async def go() -> Pin | None:
        # The ledger alone is written to, so no lock of another program's is needed.
        async with holdfast.open(settings.existing_state(), kind="cli", lock_protocol="none") as hf:
            return await act(hf)

    return asyncio.run(go())


def _check(settings: Settings, ref: str, key: str) -> None:
    """Refuse a model that the configuration does not lead to, and a key that its provider does not have."""
    from holdfast.model import catalog

    providers = settings.load().config.models.settings()
    try:
        catalog.resolve(ref, providers, os.environ)
    except ProviderError as keyless:
        click.echo(f"holdfast: {keyless}", err=True)
    names = [one.label for one in catalog.credentials_of(ref, providers, os.environ)]
    if key and key not in names:
        raise InputError(f"no key {key!r} for {ref}: there are {', '.join(names) or 'none'}")
