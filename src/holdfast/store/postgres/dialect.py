"""The ledger's statements in PostgreSQL's words. They are written once, for SQLite (`store/sql`).

What a function can do is done by functions and aggregates of the schema (`schema.py`: `max(a, b)`, `group_concat`);
what is grammar is done here, outside quoted text:

    ?, ?1, :name                  %(p1)s, %(name)s
    insert or ignore into t ...   insert into t ... on conflict do nothing
    insert or replace into t ...  ... on conflict(key) do update set each column; those not named fall back
    a is b, a is not b            a is not distinct from b, a is distinct from b
    limit ?                       limit nullif(?, -1): -1 is any number
    ? is null, in ()              %(p1)s::text is null, in (null)
    collate binary, char(n), x''  collate "C", chr(n), ''::bytea

Replacing a row of SQLite's makes a new one; here the row stays, with the same values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from holdfast.store.sql.tables import ADDED, TABLES

_TOKEN = re.compile(r"x'(?P<hex>[0-9a-fA-F]*)'|(?P<text>'(?:[^']|'')*')|\?(?P<number>\d*)|(?<!:):(?P<name>[a-z_]\w*)|%")
_WORDS = (
    (re.compile(r"\bis not (?!null\b|distinct\b)"), "is distinct from "),
    (re.compile(r"\bis (?!not\b|null\b|distinct\b)"), "is not distinct from "),
    (re.compile(r"\bcollate binary\b"), 'collate "C"'),
    (re.compile(r"\bchar\("), "chr("),
    (re.compile(r"\blimit -1\b"), "limit null"),
    (re.compile(r"\bin \(\)"), "in (null)"),
    (re.compile(r"json_extract\(cast\(origin as text\), $"), "(convert_from(origin, 'UTF8')::json ->> "),
)
_REPLACE = re.compile(r"^\s*insert or replace into (\w+)\s*(?:\(([^)]*)\))?", re.DOTALL)
_IGNORE = re.compile(r"^(\s*)insert or ignore into ")
_TABLE = re.compile(r"create table (?:if not exists )?(\w+)\(\n?(.*?)\n?\) strict", re.DOTALL)


def keys_and_columns() -> dict[str, tuple[list[str], list[str]]]:
    """Primary key and columns of each table, as `store/sql/tables.py` has them."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for name, body in _TABLE.findall(TABLES + ADDED):
        parts = [part.strip() for part in re.split(r",(?![^(]*\))", re.sub(r"--.*", "", body))]
        columns = [part.split()[0] for part in parts if part and not part.startswith(("primary key", "unique("))]
        key = [part.split()[0] for part in parts if " primary key" in part]
        together = re.search(r"primary key\(([^)]*)\)", body)
        found[name] = ([one.strip() for one in together.group(1).split(",")] if together else key), columns
    return found


_TABLES = keys_and_columns()


@lru_cache(maxsize=4096)
def translated(sql: str) -> tuple[str, bool]:
    """The statement for psycopg, and whether its parameters go by place (then they are named `p1`, `p2`, ...)."""
    ignore = _IGNORE.search(sql)
    replace = _REPLACE.search(sql)
    body = _IGNORE.sub(r"\1insert into ", sql) if ignore else sql
    if replace is not None:
        body = body.replace("insert or replace into", "insert into", 1)
    said, by_place = _with_placeholders(body)
    if ignore:
        said += " on conflict do nothing"
    if replace is not None:
        said += _on_conflict(replace.group(1), replace.group(2))
    return said, by_place


def _with_placeholders(sql: str) -> tuple[str, bool]:
    pieces: list[str] = []
    highest, by_place, at = 0, True, 0
    for token in _TOKEN.finditer(sql):
        before = _in_words(sql[at : token.start()])
        at = token.end()
        if token["hex"] is not None:
            said = f"'\\x{token['hex']}'::bytea"
        elif token["text"] is not None:
            said = token["text"].replace("%", "%%")
            if said == "'$.join'":
                said = "'join'"
        elif token["name"] is not None:
            said, by_place = f"%({token['name']})s", False
        elif token["number"] is not None:
            number = int(token["number"]) if token["number"] else highest + 1
            highest = max(highest, number)
            said = f"%(p{number})s"
        else:
            said = "%%"
        if said.startswith("%(") and before.rstrip().endswith(" limit"):
            said = f"nullif({said}, -1)"
        if said.startswith("%(") and sql.startswith(" is null", at):
            said = f"{said}::text"  # its type cannot be told from that
        pieces += [before, said]
    return "".join([*pieces, _in_words(sql[at:])]), by_place


def _in_words(sql: str) -> str:
    for pattern, words in _WORDS:
        sql = pattern.sub(words, sql)
    return sql


def _on_conflict(table: str, named: str | None) -> str:
    key, columns = _TABLES[table]
    given = [one.strip() for one in named.split(",")] if named is not None else columns
    sets = [f"{one}=excluded.{one}" if one in given else f"{one}=default" for one in columns if one not in key]
    return f" on conflict({', '.join(key)}) do update set {', '.join(sets)}"


def values_of(parameters: Sequence[Any] | Mapping[str, Any], *, by_place: bool) -> dict[str, Any]:
    """Parameters as psycopg takes them. SQLite has no boolean; PostgreSQL's text has no character 0."""
    if isinstance(parameters, Mapping):
        return {name: _value(value) for name, value in parameters.items()}
    if not by_place:
        raise ValueError("a statement with named parameters was given a sequence")
    return {f"p{number}": _value(value) for number, value in enumerate(parameters, 1)}


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and "\0" in value:
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value
