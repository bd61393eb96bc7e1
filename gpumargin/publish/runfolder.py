"""The folder of a run in the making: part by part, each finished one recorded, so that another process can go on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from gpumargin import disk
from gpumargin.errors import InputError, InternalError, ResourceError, UsageError
from gpumargin.publish.files import POINTER, Written, json_text, put_bytes, put_checksums, put_table, put_tables, words
from gpumargin.publish.records import Record, packed, read_record, record_path, whole_parts, write_record
from gpumargin.publish.staging import Note, take_place

_VERDICTS = (InputError, InternalError, UsageError)  # going on would end the same way


def silent(_: str) -> None:
    """Drops what somebody might want to know."""


class RunFolder:
    """A run in the making; `with` leaves nothing behind but the published run, or what can be resumed.

    Whatever ends the process, results appear under `out` whole or not at all. What fails for want of disk, memory or
    time, or is killed, keeps the parts that were finished, if it has an identity; what is refused keeps nothing.

    Args:
      out: folder that holds runs; made if absent.
      identity: what the results depend on, for those who resume; None = a run that cannot be resumed.
      resumes: whether to go on with an unfinished run of the same identity.
      note: told what somebody may want to know.

    Attributes:
      scratch: folder for what is needed while the run is made; whoever needs it makes it, leaving removes it.
      finished: files of the parts that are there already, from the first on; `record` has the rest.
    """

    scratch: Path
    finished: list[Mapping[str, Written]]

    def __init__(
        self, out: Path, identity: Mapping[str, Any] | None = None, *, resumes: bool = False, note: Note = silent
    ) -> None:
        self._out, self._identity, self._resumes, self._note = out, identity, resumes, note
        self._files: dict[str, Written] = {}  # since the last finished part
        self._is_new = False

    def __enter__(self) -> Self:
        self._is_new = not self._out.exists()
        try:
            disk.make_folder(self._out)
            self._place = take_place(self._out, self._identity, resumes=self._resumes, note=self._note)
            self._mend()
        except OSError as error:
            self._leave_out()
            message = f"cannot write to the folder {str(self._out)!r}: {words(error)}"
            raise ResourceError(message) from error
        except BaseException:
            self._leave_out()
            raise
        self.scratch = self._place.scratch
        self.finished = whole_parts(self._place.records, self._place.run)
        self._tidy()
        return self

    def _mend(self) -> None:
        """Makes the folders of a place that somebody had begun to remove."""
        if self.published is None:
            for folder in (self._place.run, self._place.records):
                disk.make_folder(folder, above=False)

    def _leave_out(self) -> None:
        if self._is_new:
            with suppress(OSError):  # another run is in it by now
                self._out.rmdir()

    def _tidy(self) -> None:
        """Removes from a place that was taken over what no record answers for."""
        known = {name for files in self.finished for name in files}
        kept = {self._place.run / name for name in known}
        kept |= {record_path(self._place.records, number) for number in range(len(self.finished))}
        there = [path for folder in (self._place.run, self._place.records) for path in folder.rglob("*")]
        for path in there:
            if not path.is_dir() and path not in kept:
                disk.remove(path)
        disk.remove_tree(self.scratch)
        self._parts = Counter(Path(name).parts[0] for name in known)
        if self.finished:
            self._note(f"resuming {str(self._place.path)!r} behind {len(self.finished)} finished parts")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        place, said = self._place, self._said()
        disk.remove_tree(self.scratch)
        keeps = self._is_resumable() and error is not None and not isinstance(error, _VERDICTS)
        if keeps:
            place.lock.release()
        else:
            place.give_up()
        if error is not None:
            self._leave_out()
        if isinstance(error, OSError):
            message = f"cannot write {str(place.path)!r}: {words(error)}; {said}"
            raise ResourceError(message) from error
        if keeps and error is not None:
            error.add_note(said)

    def _is_resumable(self) -> bool:
        if self._identity is None or not self._place.path.is_dir():
            return False
        return bool(self.finished) or self._place.named.exists()

    def _said(self) -> str:
        """What became of the run."""
        if self.published is not None:
            return f"{str(self.published)!r} is published, but {POINTER!r} does not name it yet: run --resume will"
        if self._is_resumable():
            return f"nothing was published; {len(self.finished)} parts are finished, run --resume goes on behind them"
        return "nothing was published"

    def add_part(self, name: str, table: pa.Table) -> None:
        """Writes the next part of a table that arrives in parts: `NAME/part-00000.parquet`, ...

        Tables of different names may be added at once.
        """
        index = self._parts[name]
        self._parts[name] += 1
        file = f"{name}/part-{index:05d}.parquet"
        disk.make_folder(self._place.run / name, above=False)
        self._files[file] = put_table(self._place.run / file, table)

    def finish_part(self, state: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> None:
        """Records that a part of the book is finished: all that was added since the one before.

        Args:
          state: what was gathered so far, for whoever goes on.
          tables: likewise, rows.
        """
        for name in {Path(file).parts[0] for file in self._files}:
            disk.sync_folder(self._place.run / name)
        disk.sync_folder(self._place.run)
        record = Record(dict(self._files), state, {key: packed(table) for key, table in tables.items()})
        write_record(self._place.records, len(self.finished), record)
        disk.sync_folder(self._place.records)
        self.finished.append(record.files)
        self._files.clear()

    def record(self, number: int) -> Record:
        """What a finished part laid aside, read from disk: of a large book, all of them would not fit into memory.

        Raises:
          ResourceError: it is no longer what it was when the folder was entered.
        """
        found = read_record(self._place.records, number)
        if found is None:
            message = f"{str(record_path(self._place.records, number))!r} changed while the run was resumed; try again"
            raise ResourceError(message)
        return found

    def add_table(self, name: str, table: pa.Table) -> None:
        """Writes a whole small table: `NAME.parquet`."""
        put_table(self._place.run / f"{name}.parquet", table)

    def add_rows(self, name: str, tables: Iterator[pa.Table]) -> None:
        """Writes `NAME.parquet` from tables that follow one another; nothing where there are none."""
        put_tables(self._place.run / f"{name}.parquet", tables)

    def publish(self, run_id: str, summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> Path:
        """Makes the run visible: manifest and checksums last, one rename, then the pointer to the newest run.

        Args:
          run_id: name of the new run, which must not exist.
          summary: content of `summary.json`.
          manifest: content of `manifest.json`.

        Returns:
          The run's folder.
        """
        run = self._place.run
        for name, content in (("summary.json", summary), ("manifest.json", manifest)):
            put_bytes(run / name, json_text(content).encode())
        put_checksums(run, {name: made.sha256 for files in self.finished for name, made in files.items()})
        for name in self._parts:
            disk.sync_folder(run / name)
        disk.sync_folder(run)
        target = self._out / run_id
        if os.path.lexists(target):
            message = f"a run {str(target)!r} is there already; {self._said()}"
            raise ResourceError(message)
        put_bytes(self._place.named, run_id.encode())
        disk.sync_folder(self._place.path)
        disk.rename(run, target)
        disk.sync_folder(self._out)
        self.point()
        return target

    @property
    def published(self) -> Path | None:
        """The run, if it was published, maybe by a process that ended before it could name it in `latest`."""
        if not self._place.named.exists() or self._place.run.exists():
            return None
        found = self._out / self._place.named.read_text("utf-8")
        return found if (found / "manifest.json").exists() else None

    def point(self) -> None:
        """Makes `latest` name the run that is published."""
        pointer = self._place.path / POINTER
        put_bytes(pointer, self._place.named.read_bytes() + b"\n")
        disk.rename(pointer, self._out / POINTER)
        disk.sync_folder(self._out)
