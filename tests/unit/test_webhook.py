"""Webhooks as plain functions: signatures, deliveries, templates."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InputError
from holdfast.inbound.webhook import KEY_BYTES_MAX, Template, delivery_key, event_name, is_signed, look_up, quoted

SECRET, BODY, NOW = "it's a secret", b'{"action": "opened"}', 1_800_000_000.0
STANDARD_KEY = base64.b64encode(b"0123456789abcdef01234567").decode()


def sha256(key: bytes, data: bytes) -> hmac.HMAC:
    return hmac.new(key, data, hashlib.sha256)


def github(body: bytes = BODY) -> dict[str, str]:
    return {"x-hub-signature-256": "sha256=" + sha256(SECRET.encode(), body).hexdigest()}


def slack(at: str = "1800000000", body: bytes = BODY) -> dict[str, str]:
    signature = sha256(SECRET.encode(), b"v0:" + at.encode() + b":" + body).hexdigest()
    return {"x-slack-request-timestamp": at, "x-slack-signature": f"v0={signature}"}


def standard(at: str = "1800000000", body: bytes = BODY, delivery: str = "msg_1") -> dict[str, str]:
    digest = sha256(base64.b64decode(STANDARD_KEY), f"{delivery}.{at}.".encode() + body).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": delivery, "webhook-timestamp": at, "webhook-signature": f"v1,bm8= {signature}"}


def test_each_schemes_own_signature_is_believed() -> None:
    assert is_signed("github", SECRET, github(), BODY, NOW)
    assert is_signed("slack", SECRET, slack(), BODY, NOW)
    assert is_signed("standard", f"whsec_{STANDARD_KEY}", standard(), BODY, NOW)
    assert is_signed("token", SECRET, {"authorization": f"Bearer {SECRET}"}, BODY, NOW)
    assert is_signed("token", SECRET, {"x-holdfast-token": SECRET}, BODY, NOW)


def test_the_published_examples_of_github_and_slack_verify() -> None:
    """Sources: GitHub, "Validating webhook deliveries"; Slack, "Verifying requests from Slack"."""
    told = {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
    assert is_signed("github", "It's a Secret to Everybody", told, b"Hello, World!", NOW)
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name="
        b"foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2F"
        b"hooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015"
        b".47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    told = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    assert is_signed("slack", "8f742231b10e8888abcd99yyyzzz85a5", told, body, 1531420618.0)


@pytest.mark.parametrize("scheme", ["token", "github", "slack", "standard"])
@given(st.binary(max_size=64), st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_nothing_else_is_believed_and_nothing_breaks(scheme: str, body: bytes, one: str, two: str, three: str) -> None:
    names = ["authorization", "x-holdfast-token", "x-hub-signature-256", "x-slack-signature", "webhook-signature"]
    headers = dict.fromkeys(names, one) | {
        "x-slack-request-timestamp": two,
        "webhook-timestamp": two,
        "webhook-id": three,
    }
    assert not is_signed(scheme, f"whsec_{STANDARD_KEY}", headers, body, NOW)  # type: ignore[arg-type]  # one of four


@given(st.integers(0, len(BODY) * 8 - 1))
def test_one_flipped_bit_of_the_body_is_noticed(bit: int) -> None:
    flipped = bytearray(BODY)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not is_signed("github", SECRET, github(), bytes(flipped), NOW)
    assert not is_signed("slack", SECRET, slack(), bytes(flipped), NOW)
    assert not is_signed("standard", STANDARD_KEY, standard(), bytes(flipped), NOW)


@pytest.mark.parametrize(
    "at", ["1799999699", "1800000301", "nan", "", "-1800000000", "1800000000.5", "１８０００００００００"]
)
def test_a_time_stamp_out_of_the_window_or_none_at_all_is_refused_though_it_is_signed(at: str) -> None:
    assert not is_signed("slack", SECRET, slack(at), BODY, NOW)
    assert not is_signed("standard", STANDARD_KEY, standard(at), BODY, NOW)


@pytest.mark.parametrize("at", ["1799999701", "1800000299"])
def test_the_edges_of_the_window_are_inside(at: str) -> None:
    assert is_signed("slack", SECRET, slack(at), BODY, NOW)
    assert is_signed("standard", STANDARD_KEY, standard(at), BODY, NOW)


def test_an_old_sha1_signature_a_wrong_prefix_and_an_empty_secret_are_no_proof() -> None:
    sha1 = "sha1=" + hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()
    assert not is_signed("github", SECRET, {"x-hub-signature": sha1, "x-hub-signature-256": sha1}, BODY, NOW)
    bare = github()["x-hub-signature-256"].removeprefix("sha256=")
    assert not is_signed("github", SECRET, {"x-hub-signature-256": bare}, BODY, NOW)
    for scheme in ("token", "github", "slack", "standard"):
        assert not is_signed(scheme, "", {"authorization": "Bearer ", **github()}, BODY, NOW)


def test_each_scheme_names_its_delivery_and_its_event() -> None:
    github_headers = {"x-github-delivery": "guid", "x-github-event": "pull_request"}
    assert delivery_key("github", github_headers, {}) == "guid"
    assert event_name("github", github_headers, {}) == "pull_request"
    message = {"event_id": "Ev1", "type": "event_callback", "event": {"type": "app_mention"}}
    assert (delivery_key("slack", {}, message), event_name("slack", {}, message)) == ("Ev1", "app_mention")
    assert delivery_key("standard", {"webhook-id": "msg_1"}, {}) == "msg_1"
    assert delivery_key("token", {"idempotency-key": "k"}, {}) == "k"
    assert delivery_key("token", {}, {}) is None
    assert event_name("standard", {}, {"type": "invoice.paid"}) == "invoice.paid"


@pytest.mark.parametrize("key", ["", " ", "x" * (KEY_BYTES_MAX + 1)])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="1 to 400 bytes"):
        delivery_key("token", {"idempotency-key": key}, {})


def test_a_template_looks_values_up_and_does_nothing_else() -> None:
    payload = {"pr": {"title": "Mend {{ pr.secret }}", "labels": [{"name": "bug"}], "n": 7}, "secret": "x"}
    filled = Template("{{ pr.title }} #{{pr.n}} [{{ pr.labels[0].name }}] {{ pr.labels }} {{ nowhere.at[3] }}|").fill(
        payload
    )
    assert filled == 'Mend {{ pr.secret }} #7 [bug] [{"name": "bug"}] |'


@pytest.mark.parametrize("place", ["__import__('os')", "a b", "a..b", "a[b]", "a|upper", "a[-1]", "1 + 1"])
def test_a_template_with_anything_but_paths_is_refused_when_it_is_read(place: str) -> None:
    with pytest.raises(InputError, match="is no path"):
        Template("{{ " + place + " }}")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_looking_up_never_fails_whatever_the_payload_is(payload: object) -> None:
    look_up(payload, "a.b[0].c")
    assert isinstance(Template("{{ a }}{{ b[2].c }}").fill({"a": payload}), str)


@given(st.text())
def test_a_quoted_payload_cannot_end_its_quotation(text: str) -> None:
    lines = quoted("test", text).split("\n")
    fence = lines[1]
    assert lines[-1] == fence
    assert fence not in text
