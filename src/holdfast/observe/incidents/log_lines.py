"""One line of a log, in whatever form it was written: when, and what it says. Pure.

Known forms: ISO times before the text (Holdfast's and OpenClaw's text form, with or without `[subsystem]` and level);
a time of day alone (OpenClaw's console); JSON lines (Holdfast's; OpenClaw's, whose text stands under "1" or "2" behind
a subsystem under "0"; `journalctl -o json`); the short form of journalctl and syslog (`May 26 09:44:16 host name[7]:
…`) and its export; what a container runtime puts before a line (`{"log": …, "time": …}`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

NESTED_MAX = 3
"""How often a text may itself be a line of another form: a container's JSON around a gateway's JSON."""
_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[T ](?P<time>\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)(?P<zone>Z|[+-]\d\d:?\d\d)?\]?\s*"
)
_MICROSECONDS = re.compile(r"[0-9]{1,18}")
_CLOCK = re.compile(r"(?P<time>\d\d:\d\d:\d\d(?:[.,]\d{1,9})?)\s+")
_SYSLOG = re.compile(
    r"(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +(?P<day>\d{1,2}) (?P<time>\d\d:\d\d:\d\d) "
    r"\S+ [^\s:]+: "
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY_IN_NAME = re.compile(r"(?<!\d)(\d{4})-?(\d\d)-?(\d\d)(?!\d)")
_TIMES = ("at", "time", "timestamp", "ts", "@timestamp")
_TEXTS = ("message", "msg", "log", "MESSAGE")


@dataclass(frozen=True, slots=True)
class LogLine:
    """What a line says. `at_ms`: UTC, milliseconds since 1970; None where the line does not tell."""

    at_ms: int | None
    text: str


def day_in_name(name: str) -> date | None:
    """The day that a file's name names, as in `openclaw-2026-05-26.log`."""
    found = _DAY_IN_NAME.search(name)
    try:
        return date(int(found[1]), int(found[2]), int(found[3])) if found else None
    except ValueError:
        return None


def line_of(raw: bytes, day: date | None) -> LogLine | None:
    """One line. `day`: of a line that tells only the time of day, and the year of one that has none."""
    return _line(raw.decode("utf-8", "replace").strip(), day, NESTED_MAX)


def export_record(raw: bytes) -> LogLine | None:
    """One record of a journal's export. A message with line breaks stands there in a binary form, behind its length."""
    at_ms: int | None = None
    text: bytes | None = None
    place = 0
    while place < len(raw):
        end = raw.find(b"\n", place)
        end = len(raw) if end < 0 else end
        name, is_text, value = raw[place:end].partition(b"=")
        place = end + 1
        if not is_text:
            size = int.from_bytes(raw[place : place + 8], "little")
            value = raw[place + 8 : place + 8 + size]
            place += 8 + size + 1
        if name == b"MESSAGE":
            text = value
        elif name == b"__REALTIME_TIMESTAMP" and len(value) < 19 and value.isdigit():
            at_ms = int(value) // 1000
    if text is None:
        return None
    inner = line_of(text, None)
    return None if inner is None else LogLine(inner.at_ms if inner.at_ms is not None else at_ms, inner.text)


def _line(text: str, day: date | None, nested: int) -> LogLine | None:
    if text.startswith("{") and nested:
        told = _json_line(text, day, nested)
        if told is not None:
            return told
    found = _SYSLOG.match(text)
    if found:
        at_ms = _syslog_ms(found, day)
        inner = _line(text[found.end() :], None, nested - 1) if nested else LogLine(None, text[found.end() :])
        return inner if inner is None or inner.at_ms is not None else LogLine(at_ms, inner.text)
    found = _ISO.match(text.lstrip("["))
    if found:
        return LogLine(_iso_ms(found["day"], found["time"], found["zone"]), text.lstrip("[")[found.end() :])
    found = _CLOCK.match(text)
    if found:
        at_ms = None if day is None else _iso_ms(day.isoformat(), found["time"], None)
        return LogLine(at_ms, text[found.end() :])
    return LogLine(None, text) if text else None


def _json_line(text: str, day: date | None, nested: int) -> LogLine | None:
    """A line that is an object; None: it is none after all, or says nothing."""
    try:
        fields = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    said = next((value for name in _TEXTS if isinstance(value := fields.get(name), str)), None)
    if said is None:
        said = _numbered(fields)
    if not said:
        return None
    inner = _line(said.strip(), day, nested - 1)
    if inner is None:
        return None
    at_ms = inner.at_ms if inner.at_ms is not None else _time_of(fields)
    return LogLine(at_ms, inner.text)


def _numbered(fields: dict[str, Any]) -> str:
    """OpenClaw's file log: what was said stands under "0", "1", …: a subsystem (itself JSON), objects, text."""
    parts: list[str] = []
    for number in map(str, range(8)):
        value = fields.get(number)
        if isinstance(value, str) and not value.startswith('{"subsystem"'):
            parts.append(value)
        elif isinstance(value, dict):
            parts.append(" ".join(f"{name}={_shown(inner)}" for name, inner in value.items()))
    return " ".join(parts)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"' if " " in value else value
    return msgspec.json.encode(value).decode()


def _time_of(fields: dict[str, Any]) -> int | None:
    meta = fields.get("_meta")
    candidates = [fields.get(name) for name in _TIMES] + [meta.get("date") if isinstance(meta, dict) else None]
    for value in candidates:
        if isinstance(value, str) and (found := _ISO.match(value)):
            return _iso_ms(found["day"], found["time"], found["zone"])
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _epoch_ms(value)
    stamp = fields.get("__REALTIME_TIMESTAMP")
    return int(stamp) // 1000 if isinstance(stamp, str) and _MICROSECONDS.fullmatch(stamp) else None


def _epoch_ms(value: float) -> int | None:
    """A number as a time: seconds or milliseconds since 1970, whichever falls between 2001 and 2286."""
    return int(value * 1000) if 1e9 <= value < 1e10 else int(value) if 1e12 <= value < 1e13 else None


def _iso_ms(day: str, time: str, zone: str | None) -> int | None:
    """Without a zone the time counts as UTC: what it was is not known, and distances stay right."""
    try:
        moment = datetime.fromisoformat(f"{day}T{time.replace(',', '.')[:15]}")
        offset = timedelta() if zone in (None, "Z") else _offset(zone)
        return int((moment.replace(tzinfo=UTC) - offset).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def _offset(zone: str) -> timedelta:
    sign = -1 if zone[0] == "-" else 1
    digits = zone[1:].replace(":", "")
    return sign * timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))


def _syslog_ms(found: re.Match[str], day: date | None) -> int | None:
    """The form has no year: that of `day`, or the one before where this would be after `day`."""
    if day is None:
        return None
    month = _MONTHS.index(found["month"]) + 1
    year = day.year - (month > day.month)
    return _iso_ms(f"{year:04d}-{month:02d}-{int(found['day']):02d}", found["time"], None)
