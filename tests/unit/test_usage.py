"""Tokens and money: prices, sums, days, words."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from holdfast.config.spending import PriceConfig
from holdfast.errors import InputError
from holdfast.model.catalog import ProviderSettings
from holdfast.model.prices import Prices
from holdfast.model.usage import Price, Tokens, Used, cost_in_words, in_words, money, of_answer, tokens_in_words
from holdfast.observe.usage import day_of, midnight_ms, report, since
from holdfast.store.views import UsedIn

NOW = datetime(2026, 5, 22, 10, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def test_money_is_whole_and_never_rounded_down() -> None:
    price = Price(input=3_000_000, output=15_000_000, cache_read=300_000, cache_write=3_750_000)
    assert price.of(Tokens(input=1_000_000)) == 3_000_000
    assert price.of(Tokens(cache_read=1)) == 1  # 0.3 of a micro-dollar
    assert price.of(Tokens(1000, 100, 2000, 400, reasoning=50)) == 3000 + 1500 + 600 + 1500
    assert price.of(Tokens()) == 0


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "$0.00"), (1, "$0.000001"), (31_200, "$0.0312"), (500_000, "$0.50"), (999_999, "$0.999999"),
        (1_000_000, "$1.00"), (1_000_001, "$1.01"), (1_234_567_890, "$1,234.57"),
    ],
)  # fmt: skip
def test_money_in_words(micros: int, text: str) -> None:
    assert money(micros) == text


def test_words_say_what_is_not_known() -> None:
    assert cost_in_words(Used(calls=2, unpriced=2)) == "unknown price"
    assert cost_in_words(Used(calls=3, cost=500_000, unpriced=1)) == "$0.50 and 1 calls of unknown price"
    assert tokens_in_words(Tokens(200, 50, 1000, reasoning=10)) == (
        "1,200 in (1,000 from the cache), 50 out (10 of them thinking)"
    )
    used = Used(2, failed=1, summaries=1, guessed=1, tokens=Tokens(5, 6), cost=10)
    assert in_words(used) == (
        "2 calls (1 without an answer, 1 for summaries, 1 guessed), 5 in, 6 out, $0.00001"
    )  # fmt: skip


async def test_prices_come_from_the_configuration_then_from_the_published_table() -> None:
    own = PriceConfig(input=2, output=4).price()
    assert own == Price(2_000_000, 4_000_000, 2_000_000, 4_000_000)
    prices = Prices(
        {"openai/house": own}, {"anthropic": ProviderSettings(base_url="https://proxy.example/v1")}
    )  # fmt: skip
    for ref in ("openai/house", "openai/gpt-5", "anthropic/claude-sonnet-4-5", "demo/demo", "ollama/llama3", "my/own"):
        await prices.ready(ref)
    million = Tokens(input=1_000_000)
    assert prices.cost("openai/house", million, NOW) == 2_000_000
    assert prices.cost("openai/gpt-5", million, NOW) == 1_250_000
    assert prices.cost("amazon-bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0", Tokens(1000), NOW) is not None
    assert prices.cost("demo/demo", million, NOW) == 0
    assert prices.cost("ollama/llama3", million, NOW) == 0


async def test_a_price_that_nobody_knows_is_said_aloud_once_and_is_never_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    prices = Prices({}, {"anthropic": ProviderSettings(base_url="https://proxy.example/v1")})
    for ref in ("openai/no-such-model", "anthropic/claude-sonnet-4-5", "my/own", "litellm/any"):
        await prices.ready(ref)
        assert prices.cost(ref, Tokens(1000), NOW) is None
        assert prices.cost(ref, Tokens(1000), NOW) is None
    told = [record.getMessage() for record in caplog.records if "no price is known" in record.getMessage()]
    assert len(told) == 4
    assert 'set prices."my/own"' in told[2]


def test_an_answer_without_counts_has_none() -> None:
    assert of_answer({"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}) is None
    assert of_answer({"input": 3, "output": "x", "cacheRead": float("inf"), "reasoning": 2}) == Tokens(3, reasoning=2)


def test_days_are_those_of_a_zone_also_where_the_clocks_change() -> None:
    # On 29 March 2026 the clocks of Berlin go from 2 to 3 o'clock: the day has 23 hours.
    assert midnight_ms(date(2026, 3, 30), BERLIN) - midnight_ms(date(2026, 3, 29), BERLIN) == 23 * 3_600_000
    assert midnight_ms(date(2026, 10, 26), BERLIN) - midnight_ms(date(2026, 10, 25), BERLIN) == 25 * 3_600_000
    assert day_of(midnight_ms(date(2026, 3, 29), BERLIN), BERLIN) == "2026-03-29"
    assert day_of(midnight_ms(date(2026, 3, 29), BERLIN) - 1, BERLIN) == "2026-03-28"
    assert day_of(midnight_ms(date(2026, 3, 29), BERLIN), UTC) == "2026-03-28"


def test_since_when() -> None:
    assert since("2026-05-01", NOW, UTC) == midnight_ms(date(2026, 5, 1), UTC)
    assert since("month", NOW, BERLIN) == midnight_ms(date(2026, 5, 1), BERLIN)
    assert since("today", NOW, UTC) == midnight_ms(date(2026, 5, 22), UTC)
    assert since("12h", NOW, UTC) == int(NOW.timestamp() * 1000) - 12 * 3_600_000
    with pytest.raises(InputError, match="7d, 12h"):
        since("soon", NOW, UTC)


def test_a_report_sums_up_by_what_was_asked() -> None:
    def used(at: str, session: str, model: str, cost: int) -> UsedIn:
        at_ms = int(datetime.fromisoformat(at).timestamp() * 1000)
        return UsedIn(at_ms, session, "main", "main", model, Used(1, tokens=Tokens(10), cost=cost))

    rows = [
        used("2026-05-21T21:45:00+00:00", "a", "x/one", 5),
        used("2026-05-21T22:15:00+00:00", "b", "x/one", 7),
        used("2026-05-22T01:00:00+00:00", "b", "x/two", 1),
    ]
    days = report(rows, by="day", since_ms=0, until_ms=1, zone=BERLIN)
    assert [(line.name, line.used.cost) for line in days.lines] == [("2026-05-21", 5), ("2026-05-22", 8)]
    models = report(rows, by="model", since_ms=0, until_ms=1)
    assert [(line.name, line.used.calls) for line in models.lines] == [("x/one", 2), ("x/two", 1)]
    assert days.total == models.total == Used(3, tokens=Tokens(30), cost=13)
    assert report(rows, by=None, since_ms=0, until_ms=1).lines == ()
