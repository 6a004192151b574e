"""The examples of docs/sessions.md are what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from holdfast.config import read_config
from holdfast.inbound.route import Conversation, route

PAGE = (Path(__file__).parents[2] / "docs" / "sessions.md").read_text(encoding="utf-8")


def said_in(words: str) -> Conversation:
    """From "Slack, workspace T1, channel C9, thread 7"."""
    channel, *rest = words.lower().split(", ")[0], *words.split(", ")[1:]
    facts: dict[str, str] = {}
    for part in rest:
        if part == "direct":
            facts["kind"] = "direct"
        elif part.startswith(("channel ", "group ")):
            facts["kind"], facts["peer"] = part.split()
        elif part.startswith("workspace "):
            facts["team"] = part.split()[1]
        elif part.startswith("thread "):
            facts["thread"] = part.split()[1]
        else:
            facts["peer"] = part
    return Conversation(channel, **facts)  # type: ignore[arg-type]  # words of the page


def test_each_row_of_the_routing_table_is_what_the_configuration_above_it_leads_to(tmp_path: Path) -> None:
    [toml] = re.findall(r"With this configuration:\n\n```toml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "holdfast.toml"
    file.write_text(toml, encoding="utf-8")
    rules = read_config(file, {}).config.routing()
    rows = re.findall(
        r"^\| ((?:Slack|Discord|console),.*?) \| (\w+) \| `(.*?)` \| (?:`(.*?)`)? ?\|$", PAGE, re.MULTILINE
    )
    assert len(rows) == 9
    for words, agent, key, home in rows:
        routed = route(said_in(words), rules)
        assert (routed.agent, routed.key, routed.home or "") == (agent, key, home), words
