"""Files of API keys: what is taken from them, and which are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import InputError
from holdfast.model import credentials
from holdfast.model.credentials import FILE_BYTES_MAX, KEYS_MAX, gather, in_order_for, read_keys_file

SECRET = "sk-abcdef"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.txt"
    path.write_text(f"# ours\n{SECRET}\n\n  sk-second  \n")
    path.chmod(0o600)
    return path


def test_a_file_holds_one_key_a_line_and_each_has_a_name_that_is_not_the_key(keys: Path) -> None:
    assert read_keys_file(str(keys)) == [("keys.txt:2", SECRET), ("keys.txt:4", "sk-second")]
    first, _ = gather(read_keys_file(str(keys)))
    assert SECRET not in f"{first!r} {first.id} {first.label}"


def readable_by_others(path: Path) -> None:
    path.chmod(0o640)


def behind_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def gone(path: Path) -> None:
    path.unlink()


def too_long(path: Path) -> None:
    path.write_bytes(b"k" * (FILE_BYTES_MAX + 1))


def something_else(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (readable_by_others, "mode 0640"), (behind_a_link, "cannot be read"), (a_folder, "not a plain file"),
        (a_pipe, "not a plain file"), (gone, "No such file"), (too_long, "no list of keys"),
        (something_else, "something else than keys"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_ours_alone_is_refused_by_name(
    keys: Path, change: Callable[[Path], None], said: str
) -> None:
    change(keys)
    with pytest.raises(InputError) as refused:
        read_keys_file(str(keys))
    assert str(keys) in str(refused.value)
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(keys: Path) -> None:
    os.chown(keys, 12345, -1)
    with pytest.raises(InputError, match="belongs to another user"):
        read_keys_file(str(keys))


def test_the_environment_gives_a_first_key_and_numbered_ones() -> None:
    env = {"OPENAI_API_KEY": "a", "OPENAI_API_KEY_2": "b", "OPENAI_API_KEY_9": "c", "OPENAI_API_KEY_10": "d"}
    found = credentials.from_environment(["OTHER", "OPENAI_API_KEY"], env)
    assert found == [("OPENAI_API_KEY", "a"), ("OPENAI_API_KEY_2", "b"), ("OPENAI_API_KEY_9", "c")]
    assert credentials.from_environment(["OPENAI_API_KEY"], {"OPENAI_API_KEY_2": "b"}) == []


def test_each_key_counts_once_and_their_number_is_bounded() -> None:
    many = gather((str(number), f"key{number % 40}") for number in range(100))
    assert len(many) == KEYS_MAX
    assert len({one.secret for one in many}) == KEYS_MAX


def test_a_session_keeps_its_order_of_keys_and_sessions_spread_over_them() -> None:
    three = gather([("a", "1"), ("b", "2"), ("c", "3")])
    first = {session: in_order_for(session, three)[0].label for session in map(str, range(60))}
    assert first == {session: in_order_for(session, reversed(three))[0].label for session in first}
    assert set(first.values()) == {"a", "b", "c"}
