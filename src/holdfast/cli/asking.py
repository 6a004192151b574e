"""Say something in a session and wait for what becomes of it: through the running gateway, or in this very process.

Both ways use the same name for the same message (source, account, key), so that a message whose gateway died on the way
is found again, not said twice.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cli.exit_codes import TryAgainError
from holdfast.cli.output import log_plainly
from holdfast.cli.remote import Gateway, GatewayGoneError, Message, OnEvent, find_gateway
from holdfast.cli.settings import Settings

if TYPE_CHECKING:
    from holdfast.config import Config
    from holdfast.inbound.event import InboundEvent
    from holdfast.store.views import InputView
    from holdfast.turn.events import Subscription

TOKEN_FILE = "token"
TOKEN_FILE_VARIABLE = "HOLDFAST_GATEWAY_TOKEN_FILE"
GATEWAY_TRIES = 20
NOBODY_HERE = "no gateway runs on this state: the next one answers it, or the next command that waits for an answer"
AGAIN_S = 0.1
"""A gateway that dies under a supervisor is back within a second or two; after that this process does the work."""


def ask(
    settings: Settings, message: Message, *, wait: bool, timeout_s: float, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Say `message` and return its input as JSON: settled, or as it is after `timeout_s`, or at once without `wait`.

    Args:
        on_event: told what happens meanwhile, by kind and data (`turn/events.py`).

    Raises:
        errors of `Holdfast.accept`; TryAgainError: a lane is full. Nothing was stored then.
    """
    until_mono = time.monotonic() + timeout_s
    for _ in range(GATEWAY_TRIES):
        gateway = _find_gateway(settings)
        if gateway is None:
            break
        try:
            if on_event is not None and wait:
                return gateway.ask_watching(message, on_event, until_mono=until_mono)
            return gateway.ask(message, wait=wait, until_mono=until_mono)
        except GatewayGoneError:
            time.sleep(AGAIN_S)
    config = settings.load().config
    log_plainly(of_one_message=True)
    return asyncio.run(_ask_here(settings, config, message, wait, until_mono, on_event))


def _find_gateway(settings: Settings) -> Gateway | None:
    folder = settings.node_dir
    return find_gateway(folder, token_file(settings, folder))


def token_file(settings: Settings, folder: Path) -> Path:
    """Where the gateway's token is. The configuration, which takes longest, is read only if it may say so."""
    if settings.config_file() is None and TOKEN_FILE_VARIABLE not in os.environ:
        return folder / TOKEN_FILE
    return Path(settings.load().config.gateway.token_file or folder / TOKEN_FILE)


async def _ask_here(
    settings: Settings, config: Config, message: Message, wait: bool, until_mono: float, on_event: OnEvent | None
) -> dict[str, Any]:
    """Run the input's turn in this process, unless another process has it."""
    from holdfast.gateway.app import open_handle, run_until_settled
    from holdfast.inbound.event import LaneFull

    async with open_handle(config, settings.state, kind="cli") as hf:
        event = _event_of(message, settings, waits=wait)
        with hf.events.subscribe(session=event.session) as events:
            admission = await hf.accept(event)
            if isinstance(admission, LaneFull):
                raise TryAgainError(
                    f"lane {admission.lane!r} is full ({admission.waiting} waiting, limit {admission.limit}); "
                    "try again later"
                )
            if not wait:
                return _left(await hf.input(admission.input_id))
            hold = await hf.held()
            if hold is not None:
                raise TryAgainError(f"input {admission.input_id} is stored, and work is held back: {hold.way_out}")
            telling = asyncio.create_task(_tell(events, admission.input_id, on_event))
            try:
                left_s = max(0.0, until_mono - time.monotonic())
                return _left(await run_until_settled(hf, config, admission.input_id, timeout_s=left_s))
            finally:
                events.close()
                await telling  # what happened last is still to be told


async def _tell(events: Subscription, input_id: str, on_event: OnEvent | None) -> None:
    async for event in events:
        if on_event is not None and event.input_id == input_id:
            on_event(event.kind, event.data)


def _event_of(message: Message, settings: Settings, *, waits: bool) -> InboundEvent:
    """The event that the gateway makes of the same message, so that both have one name and one body.

    The token is made here if no gateway has made it yet, so that the name stays the same when one does.
    """
    from holdfast.gateway.account import account_of
    from holdfast.gateway.address import load_token
    from holdfast.inbound.event import InboundEvent, Route
    from holdfast.inbound.openai_messages import read_user
    from holdfast.node_dir import make_node_dir

    token, _ = load_token(token_file(settings, make_node_dir(settings.state)))
    return InboundEvent(
        session=message.session,
        payload={"content": read_user(message.text, "text")["content"]},
        source="http",
        account=account_of(token),
        key=message.key,
        lane=message.lane,
        waits=waits,
        model=message.model,
        route=None if message.route is None else Route.parse(message.route),
        origin={"client": "holdfast-cli"},
    )


def _left(view: InputView) -> dict[str, Any]:
    """An input as the gateway shows it. One that is left queued says who will answer it: this process ends."""
    import msgspec

    shown = msgspec.to_builtins(view) | {"settled": view.settled}
    if view.state != "queued":
        return shown
    return shown | {"detail": f"{view.detail}; {NOBODY_HERE}" if view.detail else NOBODY_HERE}
