"""Places of runs in the making, `OUT/.staging-<key>-<number>`: whose they are, and what becomes of those left behind.

A place belongs to the process that holds the lock beside it. One without a holder was left behind by a process that has
ended: a run of the same inputs and parameters goes on with it if that is asked for and removes it otherwise; what
somebody else could still go on with stays.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpumargin import disk
from gpumargin.errors import ResourceError, UsageError
from gpumargin.publish.files import json_text, put_bytes, read_json
from gpumargin.publish.locks import Lock, holder, take_lock
from gpumargin.publish.records import count_records

_NAME = re.compile(r"\.staging-(?P<key>[0-9a-f]{8})-[0-9a-f]{8}")
Note = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """A folder for a run in the making, held by this process."""

    path: Path
    lock: Lock

    @property
    def run(self) -> Path:
        """What will be the run's folder."""
        return self.path / "run"

    @property
    def records(self) -> Path:
        """Records of finished parts."""
        return self.path / "parts"

    @property
    def scratch(self) -> Path:
        """What is needed only while the run is made."""
        return self.path / "scratch"

    @property
    def named(self) -> Path:
        """A file with the name under which the run was to be published, there once that has begun."""
        return self.path / "published"

    @property
    def identity(self) -> dict[str, Any]:
        """What the results depend on; empty where it is not known."""
        try:
            return read_json(self.path / "identity.json")
        except (OSError, ValueError):
            return {}

    @property
    def parts(self) -> int:
        """Records in it."""
        return count_records(self.records)

    def give_up(self) -> None:
        """Removes it."""
        disk.remove_tree(self.path)
        self.lock.release()


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _as_read(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as it is after writing and reading."""
    found: dict[str, Any] = json.loads(json_text(identity))
    return found


def _key(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_as_read(identity), sort_keys=True).encode()).hexdigest()[:8]


def _new(out: Path, identity: Mapping[str, Any] | None) -> Place:
    """A new place."""
    key = secrets.token_hex(4) if identity is None else _key(identity)
    path = out / f".staging-{key}-{secrets.token_hex(4)}"
    lock = take_lock(_lock_of(path))
    if lock is None:
        message = f"{str(path)!r} is being written by {holder(_lock_of(path))}"
        raise ResourceError(message)
    place = Place(path, lock)
    try:
        for folder in (place.run, place.records):
            disk.make_folder(folder)
        if identity is not None:
            put_bytes(path / "identity.json", json_text(identity).encode())
        disk.sync_folder(path)
        disk.sync_folder(out)
    except BaseException:
        place.give_up()
        raise
    return place


def _left_behind(out: Path) -> Iterator[Place]:
    """Places whose processes have ended, now held by this one."""
    names = {entry.name.removesuffix(".lock") for entry in out.iterdir() if entry.name.startswith(".staging-")}
    for name in sorted(names):
        if _NAME.fullmatch(name) and (lock := take_lock(_lock_of(out / name))) is not None:
            yield Place(out / name, lock)


def _held(out: Path, key: str) -> Path | None:
    """A place of the same key that another process holds."""
    for path in out.glob(f".staging-{key}-????????"):
        lock = take_lock(_lock_of(path))
        if lock is None:
            return path
        lock.release()
    return None


def take_place(out: Path, identity: Mapping[str, Any] | None, *, resumes: bool, note: Note) -> Place:
    """A place for a run, that of an unfinished one of the same identity if it is to be resumed and there is one.

    Args:
      out: folder of runs, which is there.
      identity: what results depend on; None = nobody could go on with it.
      resumes: whether to go on with an unfinished run.
      note: told what somebody may want to know.

    Raises:
      ResourceError: another process is writing the run that was to be resumed.
      UsageError: the unfinished run of this book had other parameters.
      OSError: the folder cannot be made.
    """
    if resumes and identity is not None and (path := _held(out, _key(identity))) is not None:
        message = f"the unfinished run {str(path)!r} is being written by {holder(_lock_of(path))}; wait for it"
        raise ResourceError(message)
    found = list(_left_behind(out))
    mates = [place for place in found if identity is not None and place.identity == _as_read(identity)]
    mates.sort(key=lambda place: (place.named.exists(), place.parts))
    chosen = mates.pop() if mates and resumes else None
    others = [place for place in found if place not in mates and place is not chosen]
    kept = [place for place in others if place.identity and (place.parts or place.named.exists())]
    for place in (*mates, *(place for place in others if place not in kept)):
        place.give_up()
    try:
        if resumes and chosen is None and identity is not None:
            _refuse(out, kept, _as_read(identity))
            note(f"nothing to resume in {str(out)!r}: no unfinished run of this book; starting from the beginning")
        return chosen or _new(out, identity)
    finally:
        for place in kept:
            book = place.identity.get("book")
            note(
                f"{str(place.path)!r} is an unfinished run of {book!r}, {place.parts} parts done: --resume with its "
                "parameters goes on with it; remove the folder if nobody will"
            )
            place.lock.release()


def _refuse(out: Path, kept: list[Place], identity: Mapping[str, Any]) -> None:
    """Refuses to start anew beside an unfinished run of the same book.

    Raises:
      UsageError: there is one, with other parameters.
    """
    for place in kept:
        if place.identity.get("book") == identity["book"]:
            other = [name for name in identity if place.identity.get(name) != identity[name]]
            message = (
                f"the unfinished run of this book in {str(out)!r} differs in {', '.join(other)}: give the same to "
                "resume it, or run without --resume"
            )
            raise UsageError(message)
