"""Where the time of a run goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of work in each stage of a run, and of the run as a whole.

    Stages of several threads overlap, so that their seconds may add up to more than the whole: each says how long its
    thread was at it, without stages inside it and without waiting for others.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()
        self._lock = threading.Lock()
        self._inner = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a stage."""
        outer, self._inner.seconds = getattr(self._inner, "seconds", 0.0), 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inner.seconds
            self._inner.seconds = outer + spent

    def total(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._began
