"""`holdfast config`: check, show and describe the configuration."""

from __future__ import annotations

import click

from holdfast.cli.output import print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.errors import ConfigError
from holdfast.text import escape_controls


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
@common_options
@pass_settings
def show(settings: Settings) -> None:
    """Show what is in force as TOML, each value with its source: default, file, or a variable. Secrets are hidden."""
    from holdfast.config.show import as_toml, rows

    loaded = settings.load()
    if settings.json:
        print_json([{"key": row.key, "value": row.value, "source": row.source} for row in rows(loaded)])
    else:
        print_text(f"# {loaded.file or 'no file'}\n\n{as_toml(loaded)}".rstrip("\n"))


@config.command()
@common_options
def schema() -> None:
    """Print the JSON schema of holdfast.toml, for editors."""
    from holdfast.config.model import Config

    print_json(Config.model_json_schema())
