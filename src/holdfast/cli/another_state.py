"""Whether a gateway that runs here uses another state than the command: what is not found may be found there."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager

from holdfast.cli.remote import EVERY_ADDRESS, PROBE_S
from holdfast.cli.settings import Settings
from holdfast.errors import ConfigError, UnknownInputError, UnknownSessionError


@contextmanager
def telling_of_another_state(settings: Settings) -> Iterator[None]:
    """What a command does not find it may have looked for in the wrong state: say so, if that is where a gateway is."""
    try:
        yield
    except (UnknownSessionError, UnknownInputError) as exc:
        told = gateway_elsewhere(settings)
        if told is None:
            raise
        raise type(exc)(f"{exc}; {told}") from exc


def gateway_elsewhere(settings: Settings) -> str | None:
    """The gateway at the configured address, in a sentence, if it answers for another store than ours; else None. A
    database is not asked for its name just for that.
    """
    if settings.state_dir is None:
        return None
    try:
        gateway = settings.load().config.gateway
    except ConfigError:
        return None
    host = EVERY_ADDRESS.get(gateway.host, gateway.host)
    theirs = _store_at(host, gateway.port)
    if theirs is None or theirs == _own_store(settings):
        return None
    from holdfast.gateway.address import describe_listener, url_of

    return (
        f"the gateway uses another state directory than {settings.state}: it runs at {url_of(host, gateway.port)} "
        f"({describe_listener(gateway.port) or 'its process cannot be seen'}); name its state with --state or "
        "HOLDFAST_STATE"
    )


def _store_at(host: str, port: int) -> str | None:
    with closing(http.client.HTTPConnection(host, port, timeout=PROBE_S)) as connection:
        try:
            connection.request("GET", "/healthz")
            health = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
    return str(health["store_id"]) if isinstance(health, dict) and "store_id" in health else None


def _own_store(settings: Settings) -> str | None:
    folder = settings.state_dir
    try:
        return None if folder is None else json.loads((folder / "holdfast.json").read_text())["store"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
