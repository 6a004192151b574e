"""Who may ask: the gateway's own token and those of `[gateway.tokens]`, known by their digests alone."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection  # noqa: TC002  # FastAPI reads the annotation

from holdfast.errors import ConfigError, InputError
from holdfast.gateway.account import account_of_digest
from holdfast.gateway.replies import Refusal
from holdfast.inbound.scope import EVERYTHING, Scope, granted
from holdfast.model.credentials import read_keys_file

if TYPE_CHECKING:
    from holdfast.config import Config

OWN = "gateway"
"""The name of the token in the file `token`, which may do everything."""
TOKEN_CHARS_MIN = 24
"""A shorter one could be guessed by somebody who gets at its digest. `holdfast token new` makes 43."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token. per_minute: changes it may ask for in a minute; None: any number."""

    name: str
    digest: bytes
    scopes: frozenset[Scope] = EVERYTHING
    per_minute: int | None = None

    @property
    def account(self) -> str:
        return account_of_digest(self.digest)


class Tokens:
    """The tokens of a gateway. They can be exchanged while it runs."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = tuple(tokens)

    @classmethod
    def of(cls, token: str) -> Tokens:
        """One token that may do everything."""
        return cls([own_token(token)])

    def exchange(self, tokens: Iterable[Token]) -> None:
        """From now on these count; a browser that logged in with one that is gone is logged out."""
        self._tokens = tuple(tokens)

    def of_secret(self, secret: bytes) -> Token | None:
        """Whose token that is. Digests of equal length are compared, each in constant time, and all of them."""
        given = hashlib.sha256(secret).digest()
        found: Token | None = None
        for one in self._tokens:
            if hmac.compare_digest(one.digest, given):
                found = one
        return found

    def of_account(self, account: str) -> Token | None:
        """The token with which a browser has logged in, if it still counts."""
        return next((one for one in self._tokens if one.account == account), None)


def own_token(token: str) -> Token:
    """The gateway's own."""
    return Token(OWN, hashlib.sha256(token.encode("utf-8", "replace")).digest())


def read_tokens(config: Config, env: Mapping[str, str], *, own: str) -> list[Token]:
    """All tokens of a gateway: its own and the configured ones.

    Raises:
        ConfigError: with every token that cannot be had or cannot hold, each with its key's path.
    """
    faults: list[str] = []
    tokens = [own_token(own)]
    for name, one in config.gateway.tokens.items():
        at = f"gateway.tokens.{name}"
        try:
            digest = bytes.fromhex(one.sha256) if one.sha256 else _digest(one.token_env, one.token_file, env)
        except InputError as wrong:
            faults.append(f"{at}.{wrong}")
            continue
        twin = next((other.name for other in tokens if other.digest == digest), None)
        if name == OWN:
            faults.append(f"{at}: the name is that of the gateway's own token; choose another")
        elif twin is not None:
            faults.append(f"{at}: is the same token as {twin!r}; make one of its own")
        tokens.append(Token(name, digest, granted(one.scopes), one.per_minute))
    if faults:
        raise ConfigError(faults)
    return tokens


def _digest(variable: str | None, file: str | None, env: Mapping[str, str]) -> bytes:
    """Raises InputError: it begins with the name of the key."""
    if variable is not None:
        key, secret = "token_env", env.get(variable, "").strip()
        if not secret:
            raise InputError(f"token_env: {variable} is not set")
    else:
        assert file is not None
        key = "token_file"
        try:
            found = read_keys_file(file)
        except InputError as wrong:
            raise InputError(f"token_file: {wrong}") from wrong
        if len(found) != 1:
            raise InputError(f"token_file: {file} must hold one token on one line")
        secret = found[0][1]
    if len(secret) < TOKEN_CHARS_MIN:
        raise InputError(f"{key}: is shorter than {TOKEN_CHARS_MIN} characters; `holdfast token new` makes one")
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


# ── what is asked for ────────────────────────────────────────────────────────────────────────────────────────────────

CHANGES: dict[tuple[str, str], Scope | None] = {
    ("POST", "/v1/chat/completions"): "write",
    ("POST", "/v1/responses"): "write",
    ("POST", "/v1/responses/{id}/cancel"): "write",
    ("POST", "/api/sessions/{key:path}/messages"): "write",
    ("POST", "/api/messages"): "write",
    ("POST", "/api/inputs/{id}/cancel"): "write",
    ("POST", "/api/turns/{id}/cancel"): "write",
    ("POST", "/api/sessions/{key:path}/read"): "write",
    ("PATCH", "/api/sessions/{key:path}"): "write",
    ("POST", "/api/sessions/{key:path}/reset"): "write",
    ("POST", "/api/approvals/{id}"): "approve",
    ("POST", "/login"): None,
    ("POST", "/logout"): None,
    ("POST", "/hooks/wake"): None,
    ("POST", "/hooks/agent"): None,
    ("POST", "/hooks/{name}"): None,
    ("POST", "/channels/{name}"): None,
}
"""What each route that changes something takes; None: it has a key of its own. What is not named here takes `admin`,
so that a route that somebody forgets is closed, not open.
"""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def needed(method: str, path: str) -> Scope | None:
    """What it takes to ask for a route, by its path as it is declared; None: no token of ours."""
    return "read" if method in _READING else CHANGES.get((method, path), "admin")


async def check_scope(connection: HTTPConnection) -> None:
    """A dependency of every route. Raises Refusal: the token that was shown may not do that.

    Sockets are read here; what is said through one is looked at where it is heard.
    """
    scopes: frozenset[Scope] | None = getattr(connection.state, "scopes", None)
    if scopes is None:
        return  # a door with a key of its own, or one for everybody: `Guard` let it through without a token
    route = connection.scope.get("route")
    check(scopes, needed(connection.scope.get("method", "GET"), getattr(route, "path", "")))


def check(scopes: frozenset[Scope], wanted: Scope | None) -> None:
    """Raises Refusal: `wanted` is not among them."""
    if wanted is not None and wanted not in scopes:
        has = ", ".join(sorted(scopes))
        raise Refusal(
            403, f"this takes a token with the scope {wanted!r}; yours has: {has}", "permission_error", "scope",
            details={"scope": wanted},
        )  # fmt: skip
