"""Checks of a database that holds a state: its tables, its server, who may do what, connections, encryption. Pure.

What is judged by a folder's files and its disk does not apply here; `NOT_APPLICABLE` says why.
"""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.doctor.facts import DatabaseFacts, StateFacts
from holdfast.doctor.finding import Finding

PER_NODE = 4
"""Connections of a node while it opens: writer, reader, sign of life, and the one that looks at the tables."""
NOT_APPLICABLE: dict[str, str] = {
    "links": "no files: a row is nobody's link",
    "disk": "the database's disk is its server's; what it has left cannot be asked for by SQL",
    "file system": "the promises stand on the server's commits; see the check `database` for what weakens them",
}
"""Checks that a state in a database cannot have, and why. `rights` looks at roles there, not at modes of files."""

OF_DATABASES: dict[str, str] = dict.fromkeys(("database", "connections", "tls"), "the state is a folder")


def find_bad_database(facts: StateFacts) -> Iterator[Finding]:
    """The tables are as this release made them, and the server keeps what it acknowledges."""
    at = facts.database
    if at is None:
        return
    for step in at.steps_missing:
        yield Finding(
            "database", step, f"the tables lack the step {step}",
            "start one node as their owner; it takes the step while the others run on", level="remark",
        )  # fmt: skip
    for trigger in at.triggers_off:
        yield Finding(
            "database", trigger,
            f"the trigger {trigger} is off or gone: rows changed by hand are not noticed, or queues are miscounted",
            f"alter table {_table(trigger)} enable trigger all, as its owner; then run doctor again",
        )  # fmt: skip
    for name, value in at.settings:
        yield Finding(
            "database", name,
            f"the server runs with {name}={value}: what it has acknowledged can be lost with the power",
            f"set {name}=on in postgresql.conf and restart the server",
        )  # fmt: skip
    if at.standby:
        yield Finding(
            "database", "standby", "the server is a standby, where nothing can be written",
            "name the primary, or all servers and target_session_attrs=read-write",
        )  # fmt: skip


def _table(trigger: str) -> str:
    return f"holdfast.{trigger.partition(' on ')[2]}"


def find_wrong_roles(facts: StateFacts) -> Iterator[Finding]:
    """The role may do what a node does; nobody else reads conversations."""
    at = facts.database
    if at is None:
        return
    for right in at.may_not:
        yield Finding(
            "rights", right, f"the role {at.role} may not {right}", "run what `holdfast postgres roles` prints",
        )  # fmt: skip
    for role in at.open_to:
        yield Finding(
            "rights", role, f"{_whom(role)} may read conversations and keys in the schema holdfast",
            "--fix takes these rights away, as the tables' owner", mendable=True, about=role,
        )  # fmt: skip
    if at.is_superuser:
        yield Finding(
            "rights", "superuser",
            f"the role {at.role} is a superuser: a node needs rows only, and could switch off what notices strangers",
            "run what `holdfast postgres roles` prints, and use holdfast_node", level="remark",
        )  # fmt: skip


def _whom(role: str) -> str:
    return "every role of this database" if role == "public" else f"the role {role}"


def find_few_connections(facts: StateFacts) -> Iterator[Finding]:
    """One more node finds room."""
    at = facts.database
    if at is None:
        return
    free = at.connections_max - at.connections_used
    if free < PER_NODE:
        yield Finding(
            "connections", "server",
            f"{at.connections_used} of the server's {at.connections_max} connections are in use ({at.connections_ours} "
            f"by Holdfast): a node that starts now needs {PER_NODE}",
            "raise max_connections, end what is idle, or run fewer, larger nodes", passes=True,
        )  # fmt: skip
    if 0 <= at.connections_of_role < at.connections_ours + PER_NODE:
        yield Finding(
            "connections", "role",
            f"the role {at.role} may have {at.connections_of_role} connections, and Holdfast has "
            f"{at.connections_ours} here: a node that starts now needs {PER_NODE}",
            f"alter role {at.role} connection limit …", passes=True,
        )  # fmt: skip


def find_plain_connection(facts: StateFacts) -> Iterator[Finding]:
    """Over a network the connection is encrypted, and knows whom it talks to."""
    at = facts.database
    if at is None or at.is_local:
        return
    if not at.is_encrypted:
        yield Finding(
            "tls", "encryption", "the connection to the database goes over the network and is not encrypted",
            "?sslmode=verify-full&sslrootcert=FILE in the URL, once the server has a certificate",
        )  # fmt: skip
    elif at.ssl_mode not in ("verify-ca", "verify-full"):
        yield Finding(
            "tls", "certificate",
            f"the connection is encrypted, but sslmode={at.ssl_mode} takes whoever answers for the server",
            "?sslmode=verify-full&sslrootcert=FILE", level="remark",
        )  # fmt: skip


def clock_finding(at: DatabaseFacts, ahead_max_ms: int) -> Finding | None:
    """This machine's clock against the database's, either way."""
    if abs(at.ahead_ms) <= ahead_max_ms:
        return None
    way = "ahead of" if at.ahead_ms > 0 else "behind"
    return Finding(
        "clock", "database", f"this machine's clock is {abs(at.ahead_ms) // 1000} s {way} the database's",
        "set both right (NTP): jobs are due by the clock of the node that looks",
    )  # fmt: skip
