"""A whole installation in one thread, decided by one seed: processes, disk, clock, and what befalls them.

The code under test is the real one: store, kernel, worker, runner and courier, on real files in memory. Simulated are
when each thread goes on, time, what the disk refuses and what a power loss leaves of it, the model, the platform and
those who write. Go from `run.py` (one run) to `scheduler.py` (whose turn it is), `machine.py` (what a process stands
on), `disk.py` (power loss) and `checking.py` (the promises). `python -m holdfast.testing.simulation --help`.
"""

from holdfast.testing.simulation.batch import Batch, run_batch
from holdfast.testing.simulation.run import Outcome, run_seed

__all__ = ["Batch", "Outcome", "run_batch", "run_seed"]
