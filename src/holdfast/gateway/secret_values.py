"""Every secret that a gateway can know of, by value, so that it can be taken out wherever text leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from holdfast.config.show import walk
from holdfast.errors import InputError
from holdfast.model import catalog
from holdfast.model.credentials import read_keys_file
from holdfast.tool.process import ENV_ALLOWED
from holdfast.tool.redact import secrets_in

if TYPE_CHECKING:
    from holdfast.config import Config


def secrets_of(config: Config, env: Mapping[str, str], state: str = "", *more: str) -> list[str]:
    """What the configuration and the environment hold: values of variables that are secrets by name or because a key
    names them, keys that stand in the file or in files that it names, passwords in addresses, addresses to post to.

    A file that cannot be read has no secrets here: whoever needs it refuses it by name.

    Args:
        state: a folder, which is no secret, or the address of a database, which may have a password in it.
        more: other secrets: the gateway's token.
    """
    variables = {name for provider in catalog.PROVIDERS.values() for name in provider.key_env}
    found: list[str] = [*secrets_in(env)]
    tables = {name: one.adapter_options(one.kind or name) for name, one in config.platforms().items()}
    for path, value in [*walk(config, ()), *walk(tables, ("channels",))]:
        variables |= set(_variables(path, value))
        found += _values(path, value)
    for provider in config.models.settings().values():
        variables |= {f"{provider.api_key_env}_{n}" for n in range(2, 10) if provider.api_key_env}
    found += [env[name] for name in variables if env.get(name)]
    return [*found, *passwords_in(state), *more]


def passwords_in(address: str) -> list[str]:
    """The password of an address, as it is written and as it is meant; also one among its parameters."""
    try:
        parts = urlsplit(address)
        written = [parts.password or "", *(value for name, value in parse_qsl(parts.query) if "pass" in name)]
    except ValueError:  # no address
        return []
    return [form for one in written if one for form in {one, unquote(one)}]


def _variables(path: tuple[str, ...], value: Any) -> Iterator[str]:
    """Variables of the environment that a key names."""
    if not path or value is None:
        return
    if path[-1].endswith("_env") and isinstance(value, str):
        yield value
    elif path[:2] == ("tools", "servers") and path[-1] == "env":
        yield from set(value) - set(ENV_ALLOWED)
    elif path[:2] == ("tools", "servers") and path[3:4] == ("headers",):
        yield value


def _values(path: tuple[str, ...], value: Any) -> Iterator[str]:
    """Secrets that a key holds itself, or whose file it names."""
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        yield text
        yield from passwords_in(text)
        parts = urlsplit(text) if "://" in text else None
        if parts is not None and parts.path.strip("/"):  # as it stands in the line of a request
            yield parts.path + (f"?{parts.query}" if parts.query else "")
    elif isinstance(value, str):
        yield from passwords_in(value) if "://" in value else ()
        with suppress(InputError, OSError):
            if path[-1] in ("api_keys_file", "token_file"):
                yield from (key for _, key in read_keys_file(value))
