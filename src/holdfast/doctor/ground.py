"""Checks of what a state stands on: ledger file, clock, disk, file system, modes, links. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.doctor.database import clock_finding
from holdfast.doctor.facts import FileFact, StateFacts
from holdfast.doctor.finding import Finding

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
LAYERED = frozenset({"overlay", "aufs", "fuse-overlayfs", "fuse.fuse-overlayfs"})
MIB = 1 << 20
FREE_BYTES_MIN, FREE_BYTES_LOW = 64 * MIB, 512 * MIB
"""Under the first a few large answers fill the disk; under the second there is time to see to it."""
FREE_FILES_MIN = 1000
CLOCK_AHEAD_MS = 5 * 60_000
"""Clocks that are kept by the network differ by less. Times in the ledger are for people and for timers."""


def find_bad_ledger(facts: StateFacts) -> Iterator[Finding]:
    """Whether SQLite can read it, throughout."""
    way_out = (
        "stop whatever uses this state, then `holdfast recover`: it sets a damaged ledger aside and lists sessions anew"
    )
    if facts.database is not None:
        way_out = (
            "restore the database from a backup, or copy the state out (`holdfast copy`) and look at what is there"
        )
    if facts.problem:
        yield Finding("ledger", "ledger", f"the ledger cannot be read: {facts.problem}", way_out, passes=True)
    for said in facts.ledger.damage:
        yield Finding("ledger", said, f"the ledger is damaged: {said}", way_out, passes=True)


def find_wrong_clock(facts: StateFacts) -> Iterator[Finding]:
    """Something was written later than now."""
    ahead_ms = facts.ledger.newest_ms - facts.at_ms
    if ahead_ms > CLOCK_AHEAD_MS:
        yield Finding(
            "clock", "clock",
            f"the newest time in the ledger lies {ahead_ms // 60_000} minutes ahead of this machine's clock",
            "set the clock right (NTP); jobs and delays that were noted meanwhile are late by as much",
        )  # fmt: skip
    between = None if facts.database is None else clock_finding(facts.database, CLOCK_AHEAD_MS)
    if between is not None:
        yield between


def find_full_disk(facts: StateFacts) -> Iterator[Finding]:
    disk = facts.disk
    if disk.free_bytes < FREE_BYTES_LOW:
        yield Finding(
            "disk", "space", f"{disk.free_bytes // MIB} MiB are free on the disk of {facts.path}",
            "make room; `holdfast sessions prune --dry-run` says what retention could free",
            level="fault" if disk.free_bytes < FREE_BYTES_MIN else "remark",
        )  # fmt: skip
    if disk.free_files is not None and disk.free_files < FREE_FILES_MIN:
        yield Finding(
            "disk", "files", f"the disk of {facts.path} can take {disk.free_files} more files", "remove small files"
        )


def find_bad_file_system(facts: StateFacts) -> Iterator[Finding]:
    """What `holdfast prove` tries, this reads off the mount."""
    kind = facts.disk.file_system
    if facts.disk.is_shared:
        yield Finding(
            "file system", kind,
            f"{facts.path} is on a {kind} file system, where locks and time stamps cannot be trusted between machines",
            "move the state to a local disk; opening it is refused here",
        )  # fmt: skip
    elif kind in IN_MEMORY:
        yield Finding(
            "file system", kind, f"{facts.path} is on {kind}: kills are survived, a restart of the machine is not",
            "use a disk for what is to be kept", level="remark",
        )  # fmt: skip
    elif kind in LAYERED:
        yield Finding(
            "file system", kind, f"{facts.path} is on {kind}, a container's own layer, and goes with the container",
            "put it on a volume", level="remark",
        )  # fmt: skip


def find_open_rights(facts: StateFacts) -> Iterator[Finding]:
    """Folders are 0700 and files 0600: conversations and keys are their owner's alone."""
    for one in facts.files:
        if one.kind == "link" or one.path.startswith("bells/"):
            continue
        if not one.is_ours:
            yield Finding(
                "rights", one.path, f"{_named(one, facts)} belongs to another user",
                "run as the user that the state belongs to, or give it to this one (chown)", passes=True, about="owner",
            )  # fmt: skip
        elif one.mode & 0o077:
            yield Finding(
                "rights", one.path,
                f"{_named(one, facts)} has mode {one.mode:04o}: other users of this machine may use it",
                f"--fix makes it {one.mode & 0o700:04o}", mendable=True, passes=True,
            )  # fmt: skip


def find_links(facts: StateFacts) -> Iterator[Finding]:
    """A link that leads out of the state is not followed; what is behind it is not there for Holdfast."""
    for one in facts.files:
        if one.kind == "link" and one.leads_to:
            yield Finding(
                "links", one.path, f"{one.path} is a link to {one.leads_to}, outside the state; it is not followed",
                "put the file itself there, or move the whole state", passes=True,
            )  # fmt: skip
        elif one.kind == "other" and not one.path.startswith("bells/"):
            yield Finding("links", one.path, f"{one.path} is no regular file", "move it away", passes=True)


def _named(one: FileFact, facts: StateFacts) -> str:
    return facts.path if one.path == "." else one.path
