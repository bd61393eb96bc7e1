"""Work beside work: the next of a sequence made ahead, and what is done with results left behind, one thread each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_END = object()


def ahead(items: Iterable[T]) -> Generator[T]:
    """The same items; while one is used, a thread makes the next, and no more than that."""
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, iterator, _END)
        while (item := coming.result()) is not _END:
            coming = thread.submit(next, iterator, _END)
            yield item  # type: ignore[misc]
            del item


class Lane:
    """Pieces of work done one after another in a thread; at most one waits while one is under way.

    Once one has failed, none behind it is done: each may build on those before.
    """

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._under_way: deque[Future[None]] = deque()
        self._has_failed = False

    def do(self, work: Callable[..., None], *arguments: object) -> None:
        """Leaves a piece of work to the lane, once there is room; raises what an earlier one raised."""
        while len(self._under_way) > 1:
            self._under_way.popleft().result()
        self._under_way.append(self._thread.submit(self._do, work, *arguments))

    def _do(self, work: Callable[..., None], *arguments: object) -> None:
        if self._has_failed:
            return
        try:
            work(*arguments)
        except BaseException:
            self._has_failed = True
            raise

    def wait(self) -> None:
        """Returns when all is done; raises what a piece of work raised."""
        while self._under_way:
            self._under_way.popleft().result()


@contextmanager
def lane() -> Iterator[Lane]:
    """A lane whose work is done when the block is left without an error, and dropped otherwise."""
    with ThreadPoolExecutor(1) as thread:
        made = Lane(thread)
        try:
            yield made
            made.wait()
        except BaseException:
            thread.shutdown(wait=True, cancel_futures=True)
            raise
