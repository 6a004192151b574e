"""The simulation of the line of writers obeys the law of such queues."""

from __future__ import annotations

import pytest

from benchmarks.claims_at_scale import JOBS_PER_TURN, Load, simulate


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_without_batches_the_wait_is_that_of_pollaczek_and_khinchine(busy: float) -> None:
    """One server, service of one length: the mean wait is service * (1 + busy / (2 * (1 - busy)))."""
    hold_ms = 1.2
    turns = busy / hold_ms * 1000 / JOBS_PER_TURN
    found = simulate(Load(100_000_000, turns, hold_ms=1.0, job_ms=0.2, batch=1), seed=7, jobs=40_000)
    assert found.busy == pytest.approx(busy, rel=0.03)
    assert found.mean_ms == pytest.approx(hold_ms * (1 + busy / (2 * (1 - busy))), rel=0.06)


def test_the_same_seed_gives_the_same_figures_and_another_gives_others() -> None:
    load = Load(1000, 100.0)
    assert simulate(load, seed=1, jobs=2000) == simulate(load, seed=1, jobs=2000)
    assert simulate(load, seed=1, jobs=2000) != simulate(load, seed=2, jobs=2000)


def test_few_nodes_share_commits_where_many_stand_in_line_one_by_one() -> None:
    few, many = (simulate(Load(nodes, 500.0), seed=1, jobs=10_000) for nodes in (4, 1000))
    assert few.transactions < many.transactions
    assert few.p99_ms < many.p99_ms
