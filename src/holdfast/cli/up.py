"""`holdfast up`: the gateway."""

from __future__ import annotations

import click

from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.errors import ResourceError


@click.command()
@click.option("--host", metavar="ADDRESS", help="Address to listen on [gateway.host, 127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0: a free one [gateway.port, 18890].")
@common_options
@pass_settings
def up(settings: Settings, host: str | None, port: int | None) -> int:
    """Start the gateway and stay until SIGTERM or Ctrl-C, which drain it.

    The bearer token is made at the first start and kept in the file `token` of the state. With --json the log on
    standard error is in JSON. Exit code 69: the port is taken.
    """
    settings.stand_beside_openclaw()
    loaded = settings.load()
    try:
        from holdfast.gateway.reloading import Reread
        from holdfast.gateway.supervise import run_gateway
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("holdfast"):
            raise
        raise ResourceError(
            f"the gateway needs the package {missing.name}: pip install 'holdfast[gateway]'"
        ) from missing
    form = "json" if settings.json else "text"
    reread = Reread(settings.load, settings.config_file())
    return run_gateway(
        loaded.config, settings.state, host=host, port=port, log_format=form, reread=reread, warnings=loaded.warnings
    )
