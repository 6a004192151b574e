"""What has to be true of a state directory whatever happened to its users; and making it look as after a restart."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from msgspec.structs import replace

from holdfast.store.embedded.record_file import RecordFile
from holdfast.testing.disk.checking import (
    TERMINAL,
    TORN_BY_OTHERS,
    check,
    check_inputs,
    check_transcript,
    entries,
    is_final,
    rows,
    text_of,
    transcripts,
)

__all__ = [
    "TERMINAL",
    "TORN_BY_OTHERS",
    "check",
    "check_inputs",
    "check_transcript",
    "entries",
    "is_final",
    "reboot",
    "rows",
    "text_of",
    "transcripts",
]


def reboot(state: Path) -> None:
    """Make it look as if the machine had been restarted since: other boot in all records and in the ledger."""
    for path in (state / "fence").iterdir():
        if path.suffix == "":
            file = RecordFile(path)
            record = file.read()
            if record is not None:
                for _ in range(2):
                    file.write(replace(record, boot="before"))
            file.close()
    connection = sqlite3.connect(state / "ledger.sqlite3")
    with connection:
        connection.execute("update transcripts set boot='before'")
        connection.execute("update processes set boot='before'")
    connection.close()
