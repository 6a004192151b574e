"""`holdfast token new`: a token that may do less than the gateway's own, and the table of holdfast.toml for it."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

import click

from holdfast.cli.output import print_json, print_text
from holdfast.cli.settings import Settings, common_options, pass_settings
from holdfast.errors import InputError, ResourceError
from holdfast.inbound.scope import SCOPES

TOKEN_BYTES = 32


@click.group()
@common_options
def token() -> None:
    """Make tokens for programs and people that may do less than everything."""


@token.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), default=("read",), help="May be repeated.")
@click.option(
    "--file", type=click.Path(path_type=Path), help="Keep it in this new file (mode 0600), and show it nowhere."
)
@common_options
@pass_settings
def new(settings: Settings, name: str, scopes: tuple[str, ...], file: Path | None) -> None:
    """Make a token and show it once, with the lines of holdfast.toml that let it in. Changes no configuration.

    Without --file those lines hold its SHA-256 alone. A running gateway takes them with `holdfast config reload`.
    """
    made = secrets.token_urlsafe(TOKEN_BYTES)
    digest = hashlib.sha256(made.encode()).hexdigest()
    lines = [
        f"[gateway.tokens.{_quoted(name)}]",
        f"scopes = [{', '.join(f'{chr(34)}{one}{chr(34)}' for one in scopes)}]",
    ]
    if file is None:
        lines.append(f'sha256 = "{digest}"')
    else:
        _write(file, made)
        lines.append(f"token_file = {_text(str(file.resolve()))}")
    if settings.json:
        shown = {"token": made} if file is None else {"file": str(file.resolve())}
        print_json({"name": name, "scopes": scopes, "sha256": digest, "toml": "\n".join(lines) + "\n", **shown})
        return
    print_text(f"token, shown this once: {made}\n" if file is None else f"the token is in {file}\n")
    print_text("For holdfast.toml:\n")
    print_text("\n".join(lines))


def _write(file: Path, secret: str) -> None:
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise InputError(f"{file} is there already; a token is not written over something else") from None
    except OSError as wrong:
        raise ResourceError(f"{file} cannot be written: {wrong.strerror}") from wrong
    with os.fdopen(fd, "w") as opened:
        opened.write(secret + "\n")


def _quoted(name: str) -> str:
    return name if name and all(one.isascii() and (one.isalnum() or one in "-_") for one in name) else _text(name)


def _text(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
