"""Work beside work: the next of a sequence made ahead, and what is done with results left behind, one thread each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

S = TypeVar("S")
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


def side_by_side(work: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """What a piece of work gives for every item, in threads; raises what the first of them that failed raised."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(work, items))


class Lane:
    """Pieces of work done one after another in a thread; few wait while one is under way.

    Once one has failed, none behind it is done, and each fails with the same error: it may build on those before.

    Args:
      thread: does them.
      waiting: how many may wait.
    """

    def __init__(self, thread: ThreadPoolExecutor, waiting: int = 1) -> None:
        self._thread, self._waiting = thread, waiting
        self._under_way: deque[Future[Any]] = deque()
        self._failure: BaseException | None = None

    def do(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        """Leaves a piece of work to the lane, once there is room; raises what an earlier one raised."""
        while len(self._under_way) > self._waiting:
            self._under_way.popleft().result()
        coming = self._thread.submit(self._do, work, *arguments)
        self._under_way.append(coming)
        return coming

    def _do(self, work: Callable[..., T], *arguments: object) -> T:
        if self._failure is not None:
            raise self._failure
        try:
            return work(*arguments)
        except BaseException as error:
            self._failure = error
            raise

    def wait(self) -> None:
        """Returns when all is done; raises what a piece of work raised."""
        while self._under_way:
            self._under_way.popleft().result()


@contextmanager
def lane(waiting: int = 1) -> Iterator[Lane]:
    """A lane whose work is done when the block is left without an error, and dropped otherwise."""
    with ThreadPoolExecutor(1) as thread:
        made = Lane(thread, waiting)
        try:
            yield made
            made.wait()
        except BaseException:
            thread.shutdown(wait=True, cancel_futures=True)
            raise
