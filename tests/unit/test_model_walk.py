"""What is tried next: keys, fallbacks, cool-downs, pauses."""

from __future__ import annotations

from dataclasses import dataclass, field

from holdfast.model.cooldown import Cooldown, ModelFailure, after_failure
from holdfast.model.walk import (
    Ask,
    Exhausted,
    Skip,
    Try,
    Wait,
    Walk,
    begin,
    failed,
    left_to_others,
    next_step,
    skipped,
    waited,
)

NOW_MS = 1_800_000_000_000


@dataclass
class Model:
    """Plays a walk: each ask fails with the next of `reasons`; None answers. Time moves by the pauses alone."""

    reasons: list[str | None]
    retry_after_s: float | None = None
    mono: float = 0.0
    told: list[str] = field(default_factory=list)
    soonest_s: float | None = None
    pauses: list[float] = field(default_factory=list)

    def play(self, walk: Walk, *, elsewhere: bool = False, roll: float = 1.0) -> list[str]:
        while True:
            now_ms = NOW_MS + int(self.mono * 1000)
            match step := next_step(walk, now_ms=now_ms, mono=self.mono, roll=roll):
                case Skip():
                    self.told.append(f"skip {step.candidate.model}")
                    walk = skipped(walk, step)
                case Wait():
                    self.told.append(f"wait {step.seconds:g} {step.candidate.model}")
                    self.pauses.append(step.seconds)
                    self.mono += step.seconds
                    walk = waited(walk, step)
                case Exhausted():
                    self.soonest_s = step.soonest_s
                    return [*self.told, "exhausted"]
                case Ask():
                    if step.probe is not None and elsewhere:
                        walk = left_to_others(walk, step)
                        continue
                    probe = "probe" if step.probe is not None else "ask"
                    key = f":{step.candidate.credential}" if step.candidate.credential else ""
                    self.told.append(f"{probe} {step.candidate.model}{key}")
                    reason = self.reasons.pop(0)
                    if reason is None:
                        return self.told
                    one = step.candidate
                    failure = ModelFailure(
                        one.provider, one.credential, one.model_id, reason, now_ms, self.retry_after_s
                    )
                    walk = failed(
                        walk, step, reason, retry_after_s=self.retry_after_s, mono=self.mono,
                        row=after_failure(None, failure),
                    )  # fmt: skip


def cooling(ref: str, reason: str, left_s: float, asked_ago_s: float = 10) -> Cooldown:
    provider, _, model = ref.partition("/")
    asked_ms = NOW_MS - int(asked_ago_s * 1000)
    return Cooldown(provider, "", model, reason, 1, asked_ms, NOW_MS + int(left_s * 1000), asked_ms)


def test_a_chain_moves_on_at_once() -> None:
    assert Model(["timeout", "overloaded", None]).play(begin(["a/1", "b/2", "c/3"])) == [
        "ask a/1",
        "ask b/2",
        "ask c/3",
    ]


def test_a_single_model_is_asked_again_with_growing_pauses_until_the_time_is_used_up() -> None:
    model = Model(["server_error"] * 20)
    told = model.play(begin(["a/1"]))
    assert model.pauses == [0.5, 1, 2, 4, 8, 16, 30]
    assert told[-1] == "exhausted"
    assert sum(model.pauses) < 90


def test_pauses_are_jittered() -> None:
    model = Model(["server_error", None])
    assert model.play(begin(["a/1"]), roll=0.0) == ["ask a/1", "wait 0.25 a/1", "ask a/1"]


def test_a_rate_limit_is_tried_ten_times_at_most_and_a_demanded_pause_is_kept() -> None:
    model = Model(["rate_limit"] * 20, retry_after_s=1)
    told = model.play(begin(["a/1"], retry_total_s=1000))
    assert told.count("ask a/1") == 10
    assert min(model.pauses) == 1
    assert Model(["overloaded"] * 20).play(begin(["a/1"], retry_total_s=10_000)).count("ask a/1") == 9


def test_a_pause_that_is_too_long_ends_the_call_and_is_told() -> None:
    model = Model(["rate_limit"], retry_after_s=61)
    assert model.play(begin(["a/1"])) == ["ask a/1", "exhausted"]
    assert model.soonest_s == 61


def test_what_does_not_pass_by_itself_is_not_asked_again() -> None:
    for reason in ("auth", "billing", "format", "model_not_found"):
        assert Model([reason]).play(begin(["a/1"])) == ["ask a/1", "exhausted"]


def test_after_the_round_whoever_may_be_back_soonest_is_asked() -> None:
    told = Model(["rate_limit", "auth", None]).play(begin(["a/1", "b/2"]))
    assert told == ["ask a/1", "ask b/2", "wait 0.5 a/1", "ask a/1"]


def test_without_time_for_retries_nobody_is_asked_twice() -> None:
    assert Model(["timeout", "timeout"]).play(begin(["a/1", "b/2"], retry_total_s=0)) == [
        "ask a/1",
        "ask b/2",
        "exhausted",
    ]


def test_keys_are_rotated_before_the_next_model() -> None:
    chain = [Try("a/1", "k1"), Try("a/1", "k2"), Try("a/1", "k3"), Try("b/2")]
    limited = Model(["rate_limit", "rate_limit", None]).play(begin(chain))
    assert limited == ["ask a/1:k1", "ask a/1:k2", "ask b/2"]
    unpaid = Model(["billing", "auth", "billing", None]).play(begin(chain))
    assert unpaid == ["ask a/1:k1", "ask a/1:k2", "ask a/1:k3", "ask b/2"]
    assert Model(["timeout", None]).play(begin(chain)) == ["ask a/1:k1", "ask b/2"]


def test_who_cools_down_is_passed_over() -> None:
    rows = [cooling("a/1", "timeout", 200)]
    assert Model([None]).play(begin(["a/1", "b/2"], rows)) == ["skip a/1", "ask b/2"]


def test_one_turn_probes_at_a_time() -> None:
    rows = [cooling("a/1", "rate_limit", 2000, asked_ago_s=400)]
    assert Model([None]).play(begin(["a/1", "b/2"], rows)) == ["probe a/1"]
    assert Model([None]).play(begin(["a/1", "b/2"], rows), elsewhere=True) == ["skip a/1", "ask b/2"]


def test_a_provider_gets_one_probe_a_call() -> None:
    rows = [cooling(ref, "overloaded", 2000, asked_ago_s=400) for ref in ("a/1", "a/2")]
    assert Model(["overloaded", None]).play(begin(["a/1", "a/2", "b/3"], rows)) == ["probe a/1", "skip a/2", "ask b/3"]
    assert Model(["auth", None]).play(begin(["a/1", "a/2", "b/3"], rows)) == ["probe a/1", "probe a/2"]


def test_when_all_cool_down_the_last_resort_is_asked_or_the_soonest_waited_for() -> None:
    slow = [cooling("a/1", "timeout", 200, asked_ago_s=60), cooling("b/2", "timeout", 200, asked_ago_s=60)]
    assert Model([None]).play(begin(["a/1", "b/2"], slow)) == ["skip a/1", "skip b/2", "probe a/1"]
    short = [cooling("a/1", "rate_limit", 12)]
    assert Model([None]).play(begin(["a/1"], short)) == ["skip a/1", "wait 12 a/1", "ask a/1"]
    long = Model([])
    assert long.play(begin(["a/1"], [cooling("a/1", "rate_limit", 120)])) == ["skip a/1", "exhausted"]
    assert long.soonest_s == 120
    limited = [cooling("a/1", "rate_limit", 120, asked_ago_s=60)]
    assert Model([None]).play(begin(["a/1"], limited)) == ["skip a/1", "probe a/1"]


def test_a_refused_key_is_the_last_resort_of_a_chain_without_a_pause() -> None:
    rows = [cooling("a/1", "auth", 20)]
    assert Model(["model_not_found", None]).play(begin(["a/1", "b/2"], rows)) == ["skip a/1", "ask b/2", "probe a/1"]
