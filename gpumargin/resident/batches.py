"""Requests of the devices, so many of each in a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gpumargin.pack.columns import Ints


def batches(shard: Ints, devices: int, room: int) -> Iterator[tuple[int, list[Ints]]]:
    """Requests that one call takes: the part, and for each device which of them, at most `room`."""
    for part in range(int(shard.max(initial=-1)) // devices + 1):
        own = [np.flatnonzero(shard == part * devices + device) for device in range(devices)]
        for first in range(0, max(map(len, own)), room):
            yield part, [requests[first : first + room] for requests in own]


def joint_batches(shards: list[Ints], devices: int, room: int) -> Iterator[tuple[int, list[list[Ints]]]]:
    """Batches of several lists of requests together; a list that has none left has empty ones."""
    made: list[dict[int, list[list[Ints]]]] = [{} for _ in shards]
    for own, shard in zip(made, shards, strict=True):
        for part, requests in batches(shard, devices, room):
            own.setdefault(part, []).append(requests)
    for part in sorted({part for own in made for part in own}):
        of_part = [own.get(part, []) for own in made]
        for turn in range(max(map(len, of_part))):
            yield part, [own[turn] if turn < len(own) else [np.zeros(0, np.int64)] * devices for own in of_part]


def laid(columns: Sequence[np.ndarray], requests: Sequence[Ints], room: int, blank: np.generic) -> np.ndarray:
    """Columns of the requests of each device, `[devices, columns, room]`, behind them as `blank` `[]`."""
    found = np.full((len(requests), len(columns), room), blank, blank.dtype)
    for device, own in enumerate(requests):
        for row, column in zip(found[device], columns, strict=True):
            row[: len(own)] = column[own]
    return found
