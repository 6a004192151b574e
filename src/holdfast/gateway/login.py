"""Browsers that are let in without the token: whoever shows it once gets a cookie, for a time.

The cookie holds a random secret; the ledger has its digest, so that a login holds in every process on a state, survives
a restart, and ends everywhere at once. Another token ends them all. A change that is asked for with a cookie has to
come from a page of ours (`Origin`) and to carry a value that only such a page can read: the cookie alone proves
nothing, since browsers send it by themselves.
Source: OWASP's cheat sheets on session management and on cross-site request forgery.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from holdfast.gateway.recent import Recent
from holdfast.gateway.tokens import Token, Tokens
from holdfast.kernel import Holdfast

COOKIE = "holdfast_session"
CSRF_HEADER = "x-holdfast-csrf"
LIFETIME_S = 12 * 3600.0
FAILURES_MAX, FAILURES_S = 5, 300.0
"""So many wrong tokens from one address in that time, and it is not listened to until the first of them is so old."""
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_CANDIDATES_MAX = 4
"""Pages of other ports of a name may set cookies for it, too: so many of one name are looked at."""
log = logging.getLogger("holdfast.gateway.login")


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A browser that is let in. `csrf`: what its changes have to carry. `token`: the one that it has shown."""

    secret: str
    token: Token
    digest: str
    csrf: str
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class WrongToken:
    """It is not the token. `locked_s`: for how long its address is not listened to; 0: it may try again."""

    locked_s: float


class Logins:
    """The logins of one gateway.

    Args:
        tokens: the bearer tokens; a login may do what its token may. secure: cookies are for TLS alone.
    """

    def __init__(self, hf: Holdfast, *, tokens: Tokens, lifetime_s: float = LIFETIME_S, secure: bool = False) -> None:
        self._hf = hf
        self._tokens = tokens
        self._lifetime_s = lifetime_s
        self._secure = secure
        self._failures = Recent(FAILURES_MAX, FAILURES_S)

    async def begin(self, address: str, shown: str) -> LoggedIn | WrongToken:
        """Let a browser in that shows a token; durable. A locked address is not let in with the right one either."""
        now = self._hf.clock.mono()
        locked_s = self._failures.full_for_s(address, now)
        if locked_s > 0:
            return WrongToken(locked_s)
        token = self._tokens.of_secret(shown.encode("utf-8", "replace"))
        if token is None:
            self._failures.add(address, now)
            log.warning("login: a wrong token was shown (%s)", address)
            return WrongToken(self._failures.full_for_s(address, now))
        secret = secrets.token_urlsafe(32)
        one = await self._hf.store.begin_login(_digest(secret), token.account, self._lifetime_s)
        log.info("login: a browser was let in (%s, %s)", token.name, address)
        return LoggedIn(secret, token, one.digest, _csrf(secret), one.expires_at_ms)

    async def of(self, cookies: Iterable[bytes], host: str) -> LoggedIn | None:
        """Who holds one of these cookies, if any of them holds. `host`: by which we were asked."""
        for secret in islice(_secrets(cookies, cookie_name(host)), _CANDIDATES_MAX):
            one = await self._hf.store.login(_digest(secret))
            token = self._tokens.of_account(one.account) if one is not None else None
            if one is not None and token is not None:
                return LoggedIn(secret, token, one.digest, _csrf(secret), one.expires_at_ms)
        return None

    async def holds(self, digest: str) -> bool:
        """Whether a login is not over yet, and its token still counts."""
        one = await self._hf.store.login(digest)
        return one is not None and self._tokens.of_account(one.account) is not None

    async def end(self, one: LoggedIn) -> None:
        """Log out, in every process; durable."""
        await self._hf.store.end_login(one.digest)

    def cookie(self, host: str, one: LoggedIn | None) -> str:
        """The value of `Set-Cookie`; None: the browser is to forget it."""
        value, age = (one.secret, int(self._lifetime_s)) if one is not None else ("", 0)
        secure = "; Secure" if self._secure else ""
        return f"{cookie_name(host)}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"


def is_csrf(one: LoggedIn, given: str) -> bool:
    """Whether a change carries what only a page of ours can know."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), one.csrf.encode())


def cookie_name(host: str) -> str:
    """Cookies belong to a name, whatever the port: two gateways on one machine must not take each other's."""
    port = host.rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isdecimal() and ":" in host else COOKIE


def _secrets(cookies: Iterable[bytes], name: str) -> Iterator[str]:
    for header in cookies:
        for pair in header.decode("latin-1").split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name and _SECRET.fullmatch(value):
                yield value


def _digest(secret: str) -> str:
    return hashlib.sha256(b"login:" + secret.encode()).hexdigest()


def _csrf(secret: str) -> str:
    return hmac.new(secret.encode(), b"csrf", hashlib.sha256).hexdigest()
