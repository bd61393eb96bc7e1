"""Claims about work beside work: order is kept, and nothing builds on what failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from gpumargin.lanes import ahead, lane, side_by_side


def test_pieces_are_done_in_order_in_another_thread_and_give_their_results() -> None:
    done: list[tuple[int, bool]] = []
    here = threading.get_ident()

    def work(number: int) -> int:
        done.append((number, threading.get_ident() == here))
        return number * number

    with lane() as behind:
        coming = [behind.do(work, number) for number in range(20)]
    assert done == [(number, False) for number in range(20)]
    assert [each.result() for each in coming] == [number * number for number in range(20)]


@pytest.mark.parametrize("waiting", [1, 4])
def test_what_is_behind_a_failure_is_not_done_and_fails_alike(waiting: int) -> None:
    done, may_fail = [], threading.Event()

    def work(number: int) -> None:
        may_fail.wait(60)
        if number == 0:
            raise OSError(number)
        done.append(number)

    with pytest.raises(OSError, match="0"), lane(waiting) as behind:  # noqa: PT012  the block is what is left
        coming = [behind.do(work, number) for number in range(waiting + 1)]
        may_fail.set()
        for each in coming:
            with pytest.raises(OSError, match="0"):
                each.result()
        behind.wait()
    assert done == []


def test_no_more_wait_than_were_allowed() -> None:
    may_go, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_go.wait(60)

    with lane(2) as behind:
        for _ in range(3):
            behind.do(work)
        begun.wait(60)
        fourth = threading.Thread(target=behind.do, args=(work,))
        fourth.start()
        fourth.join(0.2)
        assert fourth.is_alive()
        may_go.set()
        fourth.join(60)
        assert not fourth.is_alive()


def test_the_next_item_is_made_while_one_is_used() -> None:
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    found = []
    for item in ahead(items()):
        if item == 1:
            assert made.wait(60)
        found.append(item)
    assert found == [1, 2]


def test_pieces_of_work_are_done_side_by_side_and_the_first_failure_is_raised() -> None:
    meeting, done = threading.Barrier(3, timeout=60), list[int]()

    def work(number: int) -> None:
        meeting.wait()
        if number:
            raise KeyError(number)
        done.append(number)

    with pytest.raises(KeyError, match="1"):
        side_by_side(work, range(3))
    assert done == [0]
    assert side_by_side(str, range(9)) == [*"012345678"]
    assert side_by_side(str, []) == []
