"""How often something happened lately, by name: what limits by address or hook are counted with."""

from __future__ import annotations

from collections import OrderedDict, deque

ADDRESSES_MAX = 1024


class Recent:
    """Up to `most` times within `within_s` seconds, for each of the latest names."""

    def __init__(self, most: int, within_s: float) -> None:
        self._most = most
        self._within_s = within_s
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def is_full(self, name: str, now_mono: float) -> bool:
        times = self._times.get(name)
        return times is not None and len(times) >= self._most and now_mono - times[0] < self._within_s

    def full_for_s(self, name: str, now_mono: float) -> float:
        """For how long it stays full if nothing more happens; 0: it is not."""
        return self._times[name][0] + self._within_s - now_mono if self.is_full(name, now_mono) else 0.0

    def add(self, name: str, now_mono: float) -> None:
        self._times.setdefault(name, deque(maxlen=self._most)).append(now_mono)
        self._times.move_to_end(name)
        if len(self._times) > ADDRESSES_MAX:
            self._times.popitem(last=False)
