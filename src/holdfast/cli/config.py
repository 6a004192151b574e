"""`holdfast config`: check, show and describe the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast.cli.exit_codes import DONE, FAILED, UNAVAILABLE
from holdfast.cli.output import print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.errors import ConfigError
from holdfast.text import escape_controls

if TYPE_CHECKING:
    from holdfast.cli.remote import Gateway


def running_gateway(settings: Settings) -> Gateway | None:
    """The gateway of this state, if one runs."""
    from holdfast.cli.asking import TOKEN_FILE, token_file
    from holdfast.cli.remote import find_gateway

    state = settings.state_dir
    if state is None or not state.is_dir():
        return None
    try:
        file = token_file(settings, state)
    except ConfigError:  # it is faulty now; the gateway has read a better one
        file = state / TOKEN_FILE
    return find_gateway(state, file)


@click.group()
@common_options
def config() -> None:
    """Check, show or describe the configuration."""


@config.command()
@common_options
@pass_settings
def check(settings: Settings) -> None:
    """Report every fault (exit code 78) and every warning at once."""
    try:
        loaded = settings.load()
    except ConfigError as wrong:
        if settings.json:
            print_json({"ok": False, "file": None, "faults": wrong.faults, "warnings": []})
            click.get_current_context().exit(78)
        raise
    if settings.json:
        print_json({"ok": True, "file": loaded.file and str(loaded.file), "faults": [], "warnings": loaded.warnings})
        return
    for warning in loaded.warnings:
        print_text(f"warning: {escape_controls(warning)}")
    print_text(f"{loaded.file or 'no holdfast.toml, defaults and environment'}: good")


@config.command()
@click.option("--origin", is_flag=True, expose_value=False, help="Where each value is from; it is told in any case.")
@common_options
@pass_settings
def show(settings: Settings) -> None:
    """Show what is in force as TOML, each value with its source: default, file, or a variable. Secrets are hidden."""
    from holdfast.config.show import as_toml, rows

    loaded = settings.load()
    if settings.json:
        print_json([{"key": row.key, "value": row.value, "source": row.source} for row in rows(loaded)])
    else:
        print_text(f"# {loaded.file or 'no file'}")
        for key in _waiting(settings):
            print_text(f"# the running gateway needs a restart for {escape_controls(key)}")
        print_text(f"\n{as_toml(loaded)}".rstrip("\n"))


def _waiting(settings: Settings) -> list[str]:
    """Keys that the running gateway has read and not taken. None runs, or it says nothing: no keys."""
    gateway = running_gateway(settings)
    return [] if gateway is None else gateway.waiting_config()


@config.command()
@common_options
@pass_settings
def reload(settings: Settings) -> int:
    """Have the running gateway read the configuration again, and tell what it took and what needs a restart.

    Exit code 1: the configuration is faulty, and nothing was changed. 69: no gateway runs on this state.
    """
    gateway = running_gateway(settings)
    if gateway is None:
        print_text("no gateway runs on this state; `holdfast up` reads the configuration when it starts")
        return UNAVAILABLE
    told = gateway.reload_config()
    if settings.json:
        print_json(told)
    else:
        for what, key in (("fault", "faults"), ("warning", "warnings"), ("applied", "applied"),
                          ("needs a restart", "waiting")):  # fmt: skip
            for one in told.get(key, ()):
                print_text(f"{what}: {escape_controls(one)}")
        if told.get("faults"):
            print_text("nothing was changed")
        elif not told.get("applied") and not told.get("waiting"):
            print_text("nothing has changed")
    return FAILED if told.get("faults") else DONE


@config.command()
@common_options
def schema() -> None:
    """Print the JSON schema of holdfast.toml, for editors."""
    from holdfast.config.model import Config

    print_json(Config.model_json_schema())
