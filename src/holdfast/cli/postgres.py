"""`holdfast postgres`: what a database has to be given."""

from __future__ import annotations

from importlib.resources import files

import click

from holdfast.cli.output import print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings


@click.group()
@common_options
def postgres() -> None:
    """What goes with a state in PostgreSQL."""


@postgres.command()
@common_options
@pass_settings
def roles(settings: Settings) -> None:
    """Print SQL that makes two roles: one that owns the tables, and one with which gateways can do nothing else.

    `holdfast postgres roles | psql -d DATABASE`, as an owner of the database.
    """
    text = (files("holdfast.store.postgres") / "roles.sql").read_text()
    if settings.json:
        print_json({"sql": text})
    else:
        print_text(text)
