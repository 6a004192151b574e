"""A turn that owns a transcript file, and what the ledger notes of that file besides the claim."""

from __future__ import annotations

import json
from dataclasses import dataclass

import msgspec

from holdfast.model.policy import NOTHING_KNOWN, ModelFacts
from holdfast.session.fence import Epoch, Record, Verdict
from holdfast.store.embedded.holding import Claim, TranscriptFile
from holdfast.store.embedded.locked_file import Reached
from holdfast.store.sql import claims, inbox
from holdfast.store.sql.connection import Connection, Row


@dataclass(slots=True)
class OwnedTurn:
    """A granted claim with everything its turn needs. Handed to the turn, opaque to it (see `session/ownership.py`)."""

    file: TranscriptFile
    claim: Claim
    transcript: str
    attempt: int
    input_row: Row | None
    took_over: bool
    findings: list[str]
    has_line: bool = False
    let_go: bool = False
    models: ModelFacts = NOTHING_KNOWN

    @property
    def turn(self) -> str:
        return self.claim.turn

    @property
    def epoch(self) -> Epoch:
        return self.claim.epoch

    @property
    def lost(self) -> Verdict | None:
        return self.claim.lost

    @property
    def path(self) -> str:
        return str(self.file.path)

    def has_landed(self, entry_id: str) -> bool:
        return entry_id in self.claim.landed


METADATA_NOTE = "transcript.metadata"
"""An event of the owner's turn: another process has appended metadata, up to where, with the chain digest there."""


def note_end(conn: Connection, turn: str, process: str, reached: Reached, now_ms: int) -> None:
    """Remember beside the fence record, which may vanish, how far a running turn's transcript is recorded."""
    row = conn.execute("select session, input from turns where id=? and state='running'", (turn,)).fetchone()
    if row is not None:
        data = {"end": reached.end, "link": reached.link.hex(), "process": process}
        inbox.note_events(conn, [(now_ms, row["session"], row["input"], turn, METADATA_NOTE, data)])


def noted_end(conn: Connection, turn: str) -> Reached | None:
    """The last such note of a turn."""
    row = conn.execute(
        "select data from events where turn=? and turn is not null and kind=? order by seq desc limit 1",
        (turn, METADATA_NOTE),
    ).fetchone()
    if row is None:
        return None
    data = json.loads(row["data"])
    return Reached(data["end"], bytes.fromhex(data["link"]))


def release(conn: Connection, transcript: str, epoch: Epoch, durable: Record | None) -> bool:
    """Give the transcript up, if it is still ours. `durable`: what of it is synced, kept for after a power loss."""
    if durable is None:
        return claims.release(conn, transcript, epoch)
    at = durable.fingerprint
    cursor = conn.execute(
        "update transcripts set owner_turn=null, owner_process=null, owner_lane=null, owner_lent=0, boot=?,"
        " synced_end=?, synced_link=?, anchor=?, anchor_digest=?, fingerprint=?, dev=?, ino=?"
        " where id=? and epoch_number=? and epoch_nonce=?",
        (
            durable.boot, durable.end, durable.link, durable.anchor, durable.anchor_digest,
            msgspec.msgpack.encode(at), at.dev, at.ino, transcript, *epoch,
        ),
    )  # fmt: skip
    return cursor.rowcount == 1
