"""`holdfast send`: one message, one answer."""

from __future__ import annotations

import sys
from typing import Any

import click

from holdfast.cli.advice import FAILURES_OF_MODELS, advice_on
from holdfast.cli.asking import ask
from holdfast.cli.exit_codes import DONE, FAILED, TRY_AGAIN
from holdfast.cli.output import for_people, print_json, print_text
from holdfast.cli.remote import Message
from holdfast.cli.settings import Seconds, Settings, common_options, pass_settings
from holdfast.ids import nonce


@click.command()
@click.argument("session")
@click.argument("text")
@click.option("--lane", default="main", show_default=True, help="Lane it waits in.")
@click.option("--model", metavar="PROVIDER/MODEL", help="Model that answers [the agent's].")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait for the answer, or only until it is stored."
)
@click.option("--route", metavar="CHANNEL:TARGET", help="Send the answer there, too, for instance to console:me.")
@click.option("--key", metavar="TEXT", help="Idempotency key: the same key again is the same message [random].")
@click.option("--timeout", metavar="SECONDS", type=Seconds(min=0.1), default=600.0, show_default=True)
@common_options
@pass_settings
def send(
    settings: Settings,
    session: str,
    text: str,
    lane: str,
    model: str | None,
    route: str | None,
    wait: bool,
    key: str | None,
    timeout: float,
) -> int:
    """Say TEXT in SESSION and print the answer. TEXT "-" reads standard input.

    Works through the running gateway of the state, and without one. The message is stored before anything else happens:
    past --timeout (exit code 75) it is still answered, and `holdfast why` tells how.
    """
    settings.stand_beside_openclaw()
    message = Message(session, _read(text), key or nonce(), lane, model, route)
    shown = ask(settings, message, wait=wait, timeout_s=timeout)
    if settings.json:
        print_json(shown)
        return exit_code(shown, wait=wait)
    if not wait:
        print_text(shown["id"])
        if shown.get("detail") and not shown.get("settled", True):
            click.echo(f"holdfast: {shown['id']} waits: {shown['detail']}", err=True)
        return DONE
    return print_answer(shown, timeout)


def print_answer(shown: dict[str, Any], timeout_s: float) -> int:
    """The answer on standard output, everything else about it on standard error. Returns the exit code."""
    if shown.get("answer"):
        print_text(for_people(shown["answer"]))
    if not shown["settled"]:
        what_now = f": {shown['detail']}" if shown.get("detail") else " and goes on"
        click.echo(f"holdfast: {shown['id']} is {shown['state']} after {timeout_s:g} s{what_now}; ask again with "
                   f"`holdfast why {shown['id']}`", err=True)  # fmt: skip
    elif shown["state"] != "answered":
        reason = f": {for_people(shown['detail'])}" if shown.get("detail") else ""
        click.echo(f"holdfast: {shown['id']} ended as {shown['state']}{reason}", err=True)
        advice = (
            advice_on(shown["detail"]) if shown.get("error") in FAILURES_OF_MODELS and shown.get("detail") else None
        )
        if advice is not None:
            click.echo(f"holdfast: {advice}", err=True)
    return exit_code(shown, wait=True)


def exit_code(shown: dict[str, Any], *, wait: bool) -> int:
    """0 when it was answered (or, without waiting, stored), 75 when it is not settled yet, else 1."""
    if not wait:
        return DONE
    if not shown["settled"]:
        return TRY_AGAIN
    return DONE if shown.get("answer") is not None else FAILED


def _read(text: str) -> str:
    """The text itself, or standard input for "-". Raises a usage error for what is not UTF-8."""
    try:
        if text == "-":
            return sys.stdin.buffer.read().decode("utf-8")
        text.encode("utf-8")  # an argument that was not UTF-8 carries surrogates
    except UnicodeError as wrong:
        raise click.UsageError(f"TEXT is not UTF-8: {wrong.reason}") from wrong  # pyright: ignore[reportAttributeAccessIssue]
    return text
