"""Writing a transcript, and keeping the answer of a turn that was lost."""

from __future__ import annotations

from holdfast.session import entries as made
from holdfast.store.protocol import Store
from holdfast.testing.store_suite.words import (
    KEPT,
    ROUTE,
    Opens,
    accept,
    append_metadata,
    claim_input,
    lines_of,
    owning,
    said,
    superseded,
)


class AppendingSuite:
    """What an owner, a metadata writer and a former owner may write."""

    # ── appending ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_lines_stand_in_order_each_on_the_one_before(self, store: Store) -> None:
        async with owning(store) as owned:
            for text in ("one", "two", "three"):
                await owned.append(made.user(text))
        lines = [line for line in await lines_of(store) if line.kind == "entry"]
        assert await said(store) == ["one", "two", "three"]
        assert [line.parent for line in lines] == [None, *(line.id for line in lines[:-1])]

    async def test_appending_the_same_id_again_writes_nothing(self, store: Store) -> None:
        async with owning(store) as owned:
            line = owned.line(made.user("once"))
            for _ in range(2):
                await store.append(owned.owned, [line], sync=False)
            assert owned.owned.has_landed(line[0])
        assert await said(store) == ["once"]

    async def test_a_second_attempt_does_not_write_the_lines_of_the_first_again(self, store: Store) -> None:
        input_id = await accept(store, "hello")
        first = await claim_input(store, input_id)
        line = first.line(made.user("hello"), inputs=(input_id,))
        await store.append(first.owned, [line], sync=True)
        await store.requeue(first.owned, "the process goes away", charge=False)
        second = await claim_input(store, input_id)
        assert second.owned.has_landed(line[0])
        await store.append(second.owned, [line], sync=True)
        assert await said(store) == ["hello"]
        await second.answer()

    async def test_nothing_happened_is_unchanged(self, store: Store) -> None:
        async with owning(store) as owned:
            await owned.append(made.user("hello"))
            assert (await owned.inspect()).kind == "unchanged"

    async def test_a_line_that_is_not_conversation_advances_the_transcript_and_loses_nobody(self, opens: Opens) -> None:
        here, there = opens(), opens()
        async with owning(here) as owned:
            await owned.append(made.user("hello"))
            label_id = await append_metadata(there, made.session_info("A name"))
            assert (await owned.inspect()).kind == "advanced"
            verdict = await owned.append(made.assistant("hi", model="demo/demo"))
            assert verdict.kind == "unchanged"
        last = (await lines_of(here))[-1]
        assert last.parent == label_id

    async def test_reading_changes_nothing(self, opens: Opens) -> None:
        here, there = opens(), opens()
        async with owning(here) as owned:
            await owned.append(made.user("hello"))
            for store in (here, there):
                assert await said(store) == ["hello"]
            assert (await owned.inspect()).kind == "unchanged"
            assert [line.type for line in await here.read_tail(owned.owned)][-1] == "message"

    # ── salvage ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def test_the_answer_of_a_superseded_turn_is_kept_as_a_line_that_is_not_conversation(
        self, opens: Opens
    ) -> None:
        old, new = await superseded(opens)
        kept = made.custom("holdfast:salvage", {"text": "late answer"})
        await old.store.salvage_line(old.owned, *old.line(kept))
        assert (await new.inspect()).kind == "advanced"
        assert [line.type for line in await lines_of(new.store) if line.kind == "entry"] == ["custom"]
        await new.done()

    async def test_a_kept_answer_settles_its_input_while_nobody_else_has_claimed_it(self, opens: Opens) -> None:
        input_id = await accept(opens(), "hello", route=ROUTE)
        old, new = await superseded(opens, input_id=input_id)
        assert (await new.store.input(input_id)).state == "queued"
        assert await old.store.settle_salvaged(input_id, old.epoch, KEPT) == "superseded"
        await new.done()
        [delivery] = await new.store.deliveries(state=None, limit=10)
        assert delivery.body == "kept"

    async def test_a_kept_answer_leaves_an_input_alone_that_somebody_else_has_claimed(self, opens: Opens) -> None:
        input_id = await accept(opens(), "hello")
        old, new = await superseded(opens, input_id=input_id)
        await new.done()
        again = await claim_input(opens(), input_id)
        assert await old.store.settle_salvaged(input_id, old.epoch, KEPT) == "running"
        assert await again.answer("the new one") == "answered"
        assert (await new.store.input(input_id)).answer == "the new one"
