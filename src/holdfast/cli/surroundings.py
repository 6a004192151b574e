"""What `holdfast doctor` wants to know of what is around a state: configuration, port, keys, models."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.remote import EVERY_ADDRESS, find_gateway
from holdfast.cli.settings import Settings
from holdfast.doctor.facts import PlaceFacts, PortFact
from holdfast.errors import ConfigError, HoldfastError, InputError, ProviderError

if TYPE_CHECKING:
    from holdfast.config import Loaded
    from holdfast.config.model import Config
    from holdfast.model.clients import ModelClients

Progress = Callable[[str, int, int], None]
CONNECT_S = 1.0
ANSWER_S = 30.0
ANSWER_TOKENS = 16
"""As few as every provider accepts."""


def look_around(settings: Settings, *, online: bool, progress: Progress) -> PlaceFacts:
    """Read the configuration, ask the port, look for keys; with `online`, each model for a word. Writes nothing."""
    try:
        loaded = settings.load()
    except ConfigError as wrong:
        return PlaceFacts(config_faults=tuple(wrong.faults))
    config, keyless = loaded.config, _keyless(loaded.config)
    of_keys = {f"{key}: {said}" for key, said in keyless}
    facts = PlaceFacts(
        config_warnings=tuple(one for one in loaded.warnings if one not in of_keys),
        open_secrets=_open_secrets(loaded),
        port=_port(settings.node_dir, config),
        keyless=keyless,
    )
    without = {ref for key, ref in _refs(config) if key in dict(keyless)}
    refs = sorted({ref for _, ref in _refs(config)} - without)
    return replace(facts, silent=asyncio.run(_silent(config, refs, progress))) if online else facts


def _refs(config: Config) -> list[tuple[str, str]]:
    from holdfast.config.load import model_refs

    return model_refs(config)


def _keyless(config: Config) -> tuple[tuple[str, str], ...]:
    from holdfast.model import catalog

    found: list[tuple[str, str]] = []
    for key, ref in _refs(config):
        try:
            catalog.resolve(ref, config.models.settings(), os.environ)
        except (ProviderError, InputError) as missing:
            found.append((key, str(missing)))
    return tuple(found)


def _open_secrets(loaded: Loaded) -> tuple[str, int] | None:
    """The file of the configuration, if it holds secrets and others may read it."""
    from holdfast.config.show import HIDDEN, rows

    if loaded.file is None or not any(row.value == HIDDEN and row.source == "file" for row in rows(loaded)):
        return None
    mode = stat.S_IMODE(loaded.file.stat().st_mode)
    return (str(loaded.file), mode) if mode & 0o077 else None


def _port(state: Path, config: Config) -> PortFact | None:
    """None: it is free, or our own gateway is there. Asked by connecting: to listen there, if only for an instant,
    could keep a gateway from starting.
    """
    host, port = config.gateway.host, config.gateway.port
    if port == 0:
        return None
    try:
        with socket.create_connection((EVERY_ADDRESS.get(host, host), port), timeout=CONNECT_S):
            pass
    except OSError:
        return _unusable(host, port)
    ours = find_gateway(state, Path(config.gateway.token_file or state / "token"))
    if ours is not None and ours.port == port:
        return None
    from holdfast.gateway.address import find_holder

    return PortFact(host, port, holder=find_holder(port, state))


def _unusable(host: str, port: int) -> PortFact | None:
    """Whether this machine has that address at all; any free port will do to find out."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.bind(address)
    except OSError as refused:
        return PortFact(host, port, refused=refused.strerror or str(refused))
    return None


async def _silent(config: Config, refs: list[str], progress: Progress) -> tuple[tuple[str, str], ...]:
    """Which of the models do not answer, and what came instead."""
    from holdfast.model.clients import ModelClients

    done = 0
    async with aclosing(ModelClients(config.models.settings(), env=os.environ)) as clients:

        async def ask(ref: str) -> tuple[str, str] | None:
            nonlocal done
            said = await _ask(clients, ref)
            done += 1
            progress("models", done, len(refs))
            return None if said is None else (ref, said)

        return tuple(one for one in await asyncio.gather(*map(ask, refs)) if one is not None)


async def _ask(clients: ModelClients, ref: str) -> str | None:
    """None: something of an answer came."""
    from holdfast.model.client import ModelRequest

    question = {"role": "user", "content": "Answer with one word: ready?", "timestamp": 0}
    request = ModelRequest(ref, [question], settings={"max_tokens": ANSWER_TOKENS}, timeout_s=ANSWER_S)
    try:
        async with asyncio.timeout(ANSWER_S):
            stream = clients.client_for(ref).stream(request)
            first = await anext(stream, None)
            if (aclose := getattr(stream, "aclose", None)) is not None:
                await aclose()
            return "its stream ended without a word" if first is None else None
    except TimeoutError:
        return f"nothing within {ANSWER_S:g} s"
    except HoldfastError as refused:
        return str(refused)
