"""Many seeds, over several real processes, and what was met on the way. A batch that met too little proves nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context

from holdfast.testing.simulation.ground import Ground
from holdfast.testing.simulation.run import Outcome, run_seed

CHUNK = 25
ENOUGH_SEEDS = 300
"""A batch of at least so many must have met every kind of fault and effect below."""
MUST_BE_MET = (
    "kill", "kill all planned", "commit not synced", "stop", "power loss", "refused write", "short write",
    "failed sync", "ledger full", "ledger broken",
    "edit: adopted", "edit: foreign_turn", "edit: tampered", "clock set", "orderly restart",
    "power loss after a duplicate", "turn taken over", "turn died", "answer kept", "labelled copy",
)  # fmt: skip
ENOUGH_FOR_WAYS = 500
WAYS_TO_BE_MET = (
    "input merged", "interrupted", "dropped for another", "cut-off answer kept", "said again",
    "began anew", "stopped by /stop", "turn gave way", "job run", "sub-agent announced",
    "turn asked to end", "recovery judged", "compaction", "call allowed", "note arrived",
    "program's end told", "beginning became an answer",
)  # fmt: skip
"""What has to have come of the ways into a conversation (`ways.py`), in a batch of at least so many."""
ENOUGH_FOR_RARE = 2_000
RARE_TO_BE_MET = ("nobody answered",)
"""What comes of one seed in 150: some batches of 500 go without."""


@dataclass(slots=True)
class Batch:
    """What became of some seeds."""

    seeds: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter[str])
    broken: list[Outcome] = field(default_factory=list[Outcome])
    digests: dict[int, str] = field(default_factory=dict[int, str])

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.steps += outcome.steps
        self.virtual_s += outcome.virtual_s
        self.counts.update(outcome.counts)
        self.digests[outcome.seed] = outcome.digest
        if outcome.broken:
            self.broken.append(outcome)

    @property
    def digest(self) -> str:
        """One number for all traces: the same seeds on the same code give the same."""
        return hashlib.sha256("".join(self.digests[seed] for seed in sorted(self.digests)).encode()).hexdigest()[:16]

    def never_met(self) -> list[str]:
        """Faults and effects that a batch of this size must have met and has not."""
        wanted = MUST_BE_MET if self.seeds >= ENOUGH_SEEDS else ()
        ways = WAYS_TO_BE_MET if self.seeds >= ENOUGH_FOR_WAYS else ()
        rare = RARE_TO_BE_MET if self.seeds >= ENOUGH_FOR_RARE else ()
        return [what for what in (*wanted, *ways, *rare) if not self.counts[what]]


def run_batch(seeds: range, *, workers: int, on_progress: Callable[[Batch], object] = lambda _: None) -> Batch:
    """Run all of `seeds`; `on_progress` is called now and then."""
    batch = Batch()
    for outcome in _outcomes(seeds, workers):
        batch.add(outcome)
        if batch.seeds % CHUNK == 0:
            on_progress(batch)
    return batch


def _outcomes(seeds: range, workers: int) -> Iterator[Outcome]:
    if workers <= 1 or len(seeds) <= CHUNK:
        with Ground() as ground:
            for seed in seeds:
                yield run_seed(seed, ground=ground)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
        for done in as_completed([pool.submit(_run_chunk, chunk) for chunk in chunks]):
            yield from done.result()


def _run_chunk(seeds: range) -> list[Outcome]:
    with Ground() as ground:
        return [run_seed(seed, ground=ground) for seed in seeds]
