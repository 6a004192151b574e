"""What the web chat keeps: messages for browsers, and browsers that are logged in."""

from __future__ import annotations

from holdfast.outbox.mail import LOGINS_MAX
from holdfast.store.protocol import Store
from holdfast.testing.clock import VirtualClock
from holdfast.testing.store_suite.words import Opens


class BrowsingSuite:
    """Messages in order, each once; logins for a time."""

    async def test_a_message_that_is_put_twice_is_there_once_and_as_it_was(self, opens: Opens) -> None:
        here, there = opens(), opens()
        first = await here.put_mail("web", "d_1", "owner", "agent", "hello")
        assert await there.put_mail("web", "d_1", "owner", "agent", "other words") == first
        assert [one.text for one in await here.mail("web", "owner")] == ["hello"]
        assert await there.find_mail("web", "d_1") == first
        assert await there.find_mail("chat", "d_1") is None, "it is another channel's"

    async def test_a_browser_reads_on_from_where_it_was_and_back_from_there(self, store: Store) -> None:
        put = [await store.put_mail("web", f"d_{number}", "owner", "agent", str(number)) for number in range(6)]
        await store.put_mail("web", "d_other", "owner/plans", "user", "elsewhere")
        assert await store.mail("web", "owner", limit=2) == put[4:]
        assert await store.mail("web", "owner", before=put[4].seq, limit=2) == put[2:4]
        assert await store.mail("web", "owner", after=put[3].seq) == put[4:]
        assert await store.mail("web", "owner", after=put[0].seq, limit=2) == put[1:3]
        assert await store.mail("web", "owner", after=put[5].seq) == []
        assert [target for target, _ in await store.mail_targets("web")] == ["owner/plans", "owner"]
        assert await store.newest_mail("web") > put[5].seq
        assert await store.newest_mail("chat") == 0

    async def test_a_login_holds_for_its_time_in_every_process_and_ends_once(self, opens: Opens) -> None:
        clock = VirtualClock()
        here, there = opens(clock=clock), opens(clock=clock)
        await here.begin_login("digest", "account", 60.0)
        found = await there.login("digest")
        assert found is not None
        assert (found.account, found.expires_at_ms - found.at_ms) == ("account", 60_000)
        assert await there.login("another") is None
        await here.begin_login("short", "account", 1.0)
        await there.end_login("digest")
        await there.end_login("digest")
        assert await here.login("digest") is None
        await clock.advance(2.0)
        assert await here.login("short") is None

    async def test_the_oldest_login_ends_where_there_are_too_many(self, opens: Opens) -> None:
        clock = VirtualClock()
        store = opens(clock=clock)
        for number in range(LOGINS_MAX + 1):
            await store.begin_login(f"digest {number}", "account", 3600.0)
            await clock.advance(1.0)
        assert await store.login("digest 0") is None
        assert await store.login(f"digest {LOGINS_MAX}") is not None
