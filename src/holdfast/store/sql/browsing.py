"""The web chat in the embedded store: what browsers are shown, and which of them are logged in."""

from __future__ import annotations

from typing import Protocol

from holdfast.outbox.mail import Login, Mail, Who
from holdfast.store.sql import browser_rows
from holdfast.store.sql.ledger import Job, Ledger
from holdfast.store.sql.shielded import shielded


class Browsing(Ledger, Protocol):
    """Messages are synced: they have arrived when they are here. A login and its end are synced, too: whoever has
    logged out stays out.
    """

    async def put_mail(self, channel: str, mail_id: str, target: str, who: Who, text: str) -> Mail:
        self.refuse_if_forked()
        now_ms = self.now_ms()
        return await shielded(
            self.writer.submit(
                Job(lambda conn: browser_rows.put(conn, channel, mail_id, target, who, text, now_ms), durable=True)
            )
        )

    async def find_mail(self, channel: str, mail_id: str) -> Mail | None:
        return await self.reads.ask(lambda conn: browser_rows.find(conn, channel, mail_id))

    async def mail(
        self, channel: str, target: str, *, after: int | None = None, before: int | None = None, limit: int = 100
    ) -> list[Mail]:
        if after is not None:
            return await self.reads.ask(lambda conn: browser_rows.after(conn, channel, target, after, limit))
        return await self.reads.ask(lambda conn: browser_rows.before(conn, channel, target, before, limit))

    async def newest_mail(self, channel: str) -> int:
        return await self.reads.ask(lambda conn: browser_rows.newest(conn, channel))

    async def mail_targets(self, channel: str, limit: int = 100) -> list[tuple[str, int]]:
        return await self.reads.ask(lambda conn: browser_rows.targets(conn, channel, limit))

    async def begin_login(self, digest: str, account: str, lifetime_s: float) -> Login:
        self.refuse_if_forked()
        now_ms = self.now_ms()
        one = Login(digest, account, now_ms, now_ms + int(lifetime_s * 1000))
        await self.writer.submit(Job(lambda conn: browser_rows.begin_login(conn, one), durable=True))
        return one

    async def login(self, digest: str) -> Login | None:
        now_ms = self.now_ms()
        return await self.reads.ask(lambda conn: browser_rows.login(conn, digest, now_ms))

    async def end_login(self, digest: str) -> None:
        await self.writer.submit(Job(lambda conn: browser_rows.end_login(conn, digest), durable=True))
