"""The storm (`holdfast.testing.storm`): real processes, killed and stopped at random. And: its judge sees damage."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.storm.judge import judge
from holdfast.testing.storm.victims import Scene
from holdfast.testing.storm.weather import path_of

pytestmark = pytest.mark.proof("storm")
SECONDS = float(os.environ.get("HOLDFAST_STORM_SECONDS", "60"))
KILLS_MIN_PER_S, STOPS_MIN_PER_S = 1000 / 60, 500 / 60


def storm(folder: Path, seconds: float, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "holdfast.testing.storm", "--seconds", f"{seconds}", "--folder", str(folder)]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == 0, "\n".join([*found["broken"], f"kept in {found.get('kept')}", done.stderr[-3000:]])
    return found


@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.promise("P1", "P2", "P3", "P4", "P5", "I1", "I2", "I3", "I5", "I6", "I7", "I8", "I9", "I11")
def test_every_promise_holds_while_processes_are_killed_and_stopped_and_outsiders_edit(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    found = storm(tmp_path, SECONDS)
    counts, seen = found["counts"], found["seen"]
    assert counts["kills"] >= KILLS_MIN_PER_S * SECONDS
    assert counts["stops"] >= STOPS_MIN_PER_S * SECONDS
    record_property(
        "counts",
        f"storm of {counts['seconds']:g} s (seed {found['seed']}): {counts['kills']} kills, {counts['stops']} stops, "
        f"{counts['edits']} foreign edits, {seen['input answered']} answered, {seen['turn died']} turns died, "
        f"{seen['histories']} histories of {sum(n for name, n in seen.items() if name.startswith('op '))} operations",
    )


# ── the judge sees damage ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def calm_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a small storm has left, with nothing wrong in it."""
    found = storm(tmp_path_factory.mktemp("storm"), 6, "--kills-per-s", "5", "--gateways", "0", "--keep")
    return Path(found["kept"])


def a_clean_session(scene: Scene) -> Path:
    return max((path_of(scene, key) for key in scene.clean), key=lambda path: path.stat().st_size)


def final_lines(path: Path) -> list[bytes]:
    return [raw for raw in path.read_bytes().splitlines(keepends=True) if b'"final":true' in raw]


def answers_to_users(path: Path) -> list[bytes]:
    """Of a turn of a library's own, killed before it was told of its line, nobody knows that the line was there."""
    return [raw for raw in final_lines(path) if b"message user" in raw]


def lose_an_answer(scene: Scene) -> None:
    path = a_clean_session(scene)
    path.write_bytes(path.read_bytes().replace(answers_to_users(path)[-1], b""))


def write_an_answer_twice(scene: Scene) -> None:
    path = a_clean_session(scene)
    path.write_bytes(path.read_bytes() + final_lines(path)[0])


def change_an_answer(scene: Scene) -> None:
    path = a_clean_session(scene)
    raw = answers_to_users(path)[0]
    path.write_bytes(path.read_bytes().replace(raw, raw.replace(b"message user", b"message USER")))


def swap_two_lines(scene: Scene) -> None:
    path = a_clean_session(scene)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[2], lines[1], *lines[3:]]))


def tear_a_line(scene: Scene) -> None:
    path = a_clean_session(scene)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3][:40] + b"\n", *lines[4:]]))


def lose_an_input(scene: Scene) -> None:
    in_ledger(scene, "delete from inputs where id=(select id from inputs where state='answered' limit 1)")


def reopen_an_input(scene: Scene) -> None:
    in_ledger(scene, "update inputs set state='queued' where id=(select id from inputs where state='answered' limit 1)")


def end_it_otherwise(scene: Scene) -> None:
    in_ledger(scene, "update inputs set state='failed', detail='' where id="
                     "(select id from inputs where state='answered' limit 1)")  # fmt: skip


def deliver_twice(scene: Scene) -> None:
    platform = scene.platform("asked")
    platform.write_bytes(platform.read_bytes() + platform.read_bytes().splitlines(keepends=True)[0])


def lose_a_delivery(scene: Scene) -> None:
    platform = scene.platform("silent")
    platform.write_bytes(b"".join(platform.read_bytes().splitlines(keepends=True)[1:]))


def forget_to_deliver(scene: Scene) -> None:
    in_ledger(scene, "delete from outbox where seq=(select min(seq) from outbox)")


def let_an_intruder_be_seen(scene: Scene) -> None:
    in_ledger(scene, "update turns set outcome='taken_over', detail='tampered: x' where id=(select id from turns where"
                     " session like '%clean%' limit 1)")  # fmt: skip


def run_a_tool_twice(scene: Scene) -> None:
    notes = scene.notes / "planted.0.jsonl"
    line = json.dumps([1, "event", 0, "tool", {"call": "c", "session": "s", "epoch": 1}]) + "\n"
    notes.write_text(line + line)


def give_one_epoch_twice(scene: Scene) -> None:
    notes = scene.notes / "planted.0.jsonl"
    lines = []
    for number in (1, 2):
        facts = {"session": scene.clean[0], "epoch": 1}
        lines += [[number * 10, "call", number, "take", facts], [number * 10 + 1, "result", number, "take", facts]]
    notes.write_text("".join(json.dumps(line) + "\n" for line in lines))


def in_ledger(scene: Scene, sql: str) -> None:
    connection = sqlite3.connect(scene.state / "ledger.sqlite3")
    with connection:
        assert connection.execute(sql).rowcount == 1
    connection.close()


DAMAGE: list[tuple[Callable[[Scene], None], str]] = [
    (lose_an_answer, "P3"), (write_an_answer_twice, "P3 I1"), (change_an_answer, "P3 I6"), (swap_two_lines, "P1 I8"),
    (tear_a_line, "P3 I2"), (lose_an_input, "P3 I1"), (reopen_an_input, "P2 I5"), (end_it_otherwise, "P2 I5"),
    (deliver_twice, "P4 I6"), (lose_a_delivery, "P3 I7"), (forget_to_deliver, "P3"), (let_an_intruder_be_seen, "P5"),
    (run_a_tool_twice, "P2"), (give_one_epoch_twice, "P1 I11"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "promise"), DAMAGE, ids=lambda one: getattr(one, "__name__", one))
@pytest.mark.promise("I13")
def test_the_judge_sees(calm_scene: Path, tmp_path: Path, damage: Callable[[Scene], None], promise: str) -> None:
    scene = Scene(tmp_path / "scene", 1)
    shutil.copytree(calm_scene, scene.root)
    assert judge(scene)["broken"] == []
    damage(scene)
    broken = judge(scene)["broken"]
    assert any(one.startswith(promise) for one in broken), broken


@pytest.mark.promise("I13")
def test_a_storm_that_planted_too_little_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "holdfast.testing.storm", "--seconds", "1", "--folder", str(tmp_path)]
    quiet = [*command, "--kills-per-s", "0", "--gateways", "0"]
    done = subprocess.run(quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "planted only 0 kills of 1" in json.loads(done.stdout)["broken"]
