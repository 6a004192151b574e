"""Bugs to be planted in the real source, one at a time, and the test that finds each. `scripts/mutations.py` does it.

Each replaces text that stands in its file exactly once. When the source has moved on, `test_patches.py` says which one
no longer fits: look for the same bug in the new text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """One bug.

    Args:
        name: what is wrong, in words.
        file: below `src/holdfast`.
        old, new: what is replaced by what.
        test: the test that finds it, below `tests`.
    """

    name: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        "no epoch compare",
        "store/embedded/holding.py",
        "        if rec.epoch != claim.epoch:\n",
        "        if rec.epoch.number < claim.epoch.number:\n",
        "flow/test_ownership.py::test_a_stopped_holder_that_was_taken_over_is_told_by_whom",
    ),
    Mutation(
        "no write lock",
        "store/embedded/kernel_lock.py",
        "        try:\n            return machine.try_lock(self._fd)\n        finally:\n",
        "        try:\n            return True\n        finally:\n",
        "flow/test_ownership.py::test_a_process_stopped_inside_the_write_lock_blocks_others_only_for_the_bounded_wait",
    ),
    Mutation(
        "no torn-tail repair",
        "store/embedded/holding.py",
        "            self.machine.truncate(self.fd, rec.end)\n            return rec if rec.has_chain()",
        "            return rec if rec.has_chain()",
        "faults/test_crash_table.py::test_a_torn_tail_of_ours_is_cut",
    ),
    Mutation(
        "acknowledged before it is durable",
        "store/embedded/store.py",
        "        admission = await self.writer.submit(Job(run, durable=True))\n",
        "        admission = await self.writer.submit(Job(run))\n",
        "faults/test_syncs.py",
    ),
    Mutation(
        "a duplicate acknowledged without a sync",
        "store/sql/inbox.py",
        '    conn.execute("update inputs set duplicates=duplicates+1 where id=?", (row["id"],))\n',
        "",
        "faults/test_syncs.py",
    ),
    Mutation(
        "settled before the answer is synced",
        "store/embedded/ending.py",
        "        sync = sync_first if claim.landings and claim.lost is None else None\n",
        "        sync = None if claim.landings or claim.lost is None else sync_first\n",
        "faults/test_syncs.py",
    ),
    Mutation(
        "a send begun before `started` is committed",
        "outbox/delivery.py",
        "            started = await asyncio.shield(starting)\n",
        "            asyncio.ensure_future(self._send(channel, row, put or channel.send, row.label))\n"
        "            started = await asyncio.shield(starting)\n",
        "flow/test_delivery.py::test_a_kill_around_the_send_leaves_one_copy_where_the_platform_can_be_asked",
    ),
    Mutation(
        "reconciled while the sender lives",
        "outbox/outbox.py",
        '        if is_ours or row.sender == "dead":\n',
        '        if is_ours or row.sender != "nobody":\n',
        "unit/test_outbox.py::test_a_row_that_a_living_process_is_sending_is_left_alone",
    ),
    Mutation(
        "a canceller settles a running input",
        "store/sql/inbox.py",
        '    if row["state"] == "queued" and not _may_have_run_unseen(row) and not _is_taken_in(conn, row):\n',
        '    if row["state"] in ("queued", "running"):\n',
        "conformance/test_embedded.py::TestEmbedded::test_a_running_input_is_asked_to_end_and_its_answer_wins",
    ),
    Mutation(
        "a claim ignores the final line of the one before",
        "store/embedded/recovering.py",
        "find_final(file.fd, predecessor.first_offset or 0, self.store_id, predecessor.input_id)\n",
        "None\n",
        "faults/test_crash_table.py::test_whoever_claims_next_settles_a_final_line_first",
    ),
    Mutation(
        "a final line that nobody settled is not looked for",
        "store/embedded/claiming.py",
        '        final = find_final(file.fd, start, self.store_id, wanted["id"])\n',
        '        final = None if start >= 0 else find_final(file.fd, start, self.store_id, wanted["id"])\n',
        "faults/test_crash_table.py::test_a_lost_settlement_is_found_when_the_input_itself_is_claimed",
    ),
    Mutation(
        "a beat judged by the wall clock",
        "store/sql/watch.py",
        "        now = self._clock.mono()\n        with self._mutex:\n            seen =",
        "        now = self._clock.now().timestamp()\n        with self._mutex:\n            seen =",
        "unit/test_beats.py::test_a_wall_clock_that_is_set_takes_nobodys_turn",
    ),
    Mutation(
        "salvage settles unasked",
        "store/sql/ending.py",
        '            if row["state"] == "queued" or ours:\n',
        '            if row["state"] in ("queued", "running") or ours:\n',
        "conformance/test_embedded.py::TestEmbedded::"
        "test_a_kept_answer_leaves_an_input_alone_that_somebody_else_has_claimed",
    ),
    Mutation(
        "a metadata writer launders what an outsider wrote",
        "store/embedded/holding.py",
        "        unjudged = rec.end if rec.unjudged < 0 else rec.unjudged\n        off =",
        "        unjudged = -1\n        off =",
        "faults/test_verdicts.py::test_a_metadata_writer_launders_nothing",
    ),
    Mutation(
        "ids reused across attempts",
        "ids.py",
        '    return derived_id("entry", turn_id, epoch, sequence)\n',
        '    return derived_id("entry", turn_id, epoch[:0], sequence)\n',
        "faults/test_crash_table.py::test_an_unanswered_call_gets_an_interrupted_result_and_its_tool_is_not_run_again",
    ),
    Mutation(
        "a sub-agent is made although its parent's turn has lost its session",
        "store/sql/child_rows.py",
        "    owns = parent.turn is None or conn.execute(",
        "    owns = parent.turn is None or True or conn.execute(",
        "conformance/test_embedded.py::TestEmbedded::test_only_the_turn_that_owns_its_session_spawns_in_its_name",
    ),
    Mutation(
        "the end of a sub-agent has another name in each process",
        "inbound/child.py",
        "        child.parent_session, payload, source=END, key=child.id, lane=end_lane(child.rights), waits=True,",
        "        child.parent_session, payload, source=END, key=None, lane=end_lane(child.rights), waits=True,",
        "faults/test_children_die.py::test_a_process_may_die_between_any_two_steps_of_a_sub_agent",
    ),
    Mutation(
        "a sub-agent has ended although its own are at work",
        "store/sql/child_rows.py",
        "                 where k.parent_input is not null and k.state='open') as is_over,",
        "                 where k.parent_input is not null and k.state='never') as is_over,",
        "property/test_children.py",
    ),
    Mutation(
        "a missing sentinel counts as dead",
        "store/embedded/sentinel.py",
        '    except FileNotFoundError:\n        return "unknown"\n',
        '    except FileNotFoundError:\n        return "dead"\n',
        "flow/test_delivery.py::"
        "test_a_sender_of_whom_nobody_can_tell_whether_it_lives_is_reported_and_waited_for_as_one_that_stands_still",
    ),
    Mutation(
        "a failed sync is tried again",
        "store/embedded/holding.py",
        "            self.failed = exc\n",
        "",
        "faults/test_resources.py::test_a_failed_sync_is_final_even_for_a_reason_that_may_pass",
    ),
    Mutation(
        "bytes of the dead are not written again",
        "store/embedded/holding.py",
        "                self.machine.pwrite(fd, block, start)\n",
        "",
        "faults/test_crash_table.py::"
        "test_recovery_writes_the_bytes_of_the_dead_again_and_makes_them_durable_before_it_settles_by_them",
    ),
    Mutation(
        "a lock file that was taken over counts at once",
        "store/embedded/openclaw_lock.py",
        "        if not self._is_ours(mine):\n            return None\n",
        "",
        "faults/test_openclaw_lock.py::test_a_successor_that_came_during_the_take_over_keeps_its_lock",
    ),
    Mutation(
        "whatever lock file is there is removed at release",
        "store/embedded/openclaw_lock.py",
        "                if self._is_ours(mine):\n",
        "                if mine.raw:\n",
        "faults/test_openclaw_lock.py::test_a_process_that_stood_still_for_too_long_notices_before_it_writes",
    ),
    Mutation(
        "a lock file that was stolen is not noticed before a write",
        "store/embedded/locked_file.py",
        "        if self.beside is not None and not self.beside.is_ours():\n",
        "        if self.beside is not None and not self.beside.is_held:\n",
        "faults/test_openclaw_lock.py::test_a_process_that_stood_still_for_too_long_notices_before_it_writes",
    ),
    Mutation(
        "nobody waits for another program's lock file",
        "store/embedded/locked_file.py",
        "        if beside.try_take():\n            return True\n        if wait_ms == 0:\n",
        "        if beside.try_take() or beside.path:\n            return True\n        if wait_ms == 0:\n",
        "faults/test_openclaw_lock.py::test_an_append_waits_until_openclaw_is_done_and_goes_on_after_its_lines",
    ),
    Mutation(
        "a message that is another one in each turn",
        "tool/message.py",
        "derived_id('message', call.input_id or call.turn, call.id, call.digest)",
        "derived_id('message', call.turn, call.id, call.digest)",
        "faults/test_tools_die.py::test_a_message_is_sent_once_and_known_once",
    ),
)
