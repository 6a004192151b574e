"""What browsers are shown and who is logged in there: the two things that a chat of our own has to remember.

Other channels send to a platform, which keeps what was said. The web chat has none, so the ledger is its platform: an
answer has arrived when it is a row here, under the key of its delivery, and browsers read on from the last row that
they have. So it is shown once, whenever they come, however often it was sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Who = Literal["user", "agent"]
MAIL_KEPT = 5000
"""Newest messages of a conversation that are kept for browsers; the transcript has all."""
LOGINS_MAX = 100
"""Logins at a time; past it the oldest ends."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One message as browsers see it. `seq` grows with each; `id`: the delivery's key, or names what a person said."""

    seq: int
    id: str
    target: str
    who: Who
    text: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Login:
    """A browser that is let in without the token, for a time. `digest`: of the secret that it holds, which is kept
    nowhere. `account`: of the token that it has shown.
    """

    digest: str
    account: str
    at_ms: int
    expires_at_ms: int


class Mailbox(Protocol):
    """Where messages for browsers are kept."""

    async def put_mail(self, channel: str, mail_id: str, target: str, who: Who, text: str) -> Mail:
        """Keep a message; durable when it returns. One that is there already (by channel and id) stays as it is."""
        ...

    async def find_mail(self, channel: str, mail_id: str) -> Mail | None: ...

    async def mail(
        self, channel: str, target: str, *, after: int | None = None, before: int | None = None, limit: int = 100
    ) -> list[Mail]:
        """Messages of a conversation, oldest first: the first ones after `after`; else the last ones before `before`,
        or of all.
        """
        ...

    async def newest_mail(self, channel: str) -> int:
        """The greatest `seq` of a channel; 0: there is none."""
        ...

    async def mail_targets(self, channel: str, limit: int = 100) -> list[tuple[str, int]]:
        """Conversations and the time of their newest message, in epoch milliseconds, the latest first."""
        ...
