"""A program that margins one book in many ways and prints the hashes of its results.

    python -m tests.many_ways BOOKS OUT PLAN

PLAN is JSON: `threads`, and `ways`, each the name of a book in BOOKS, a memory budget, and whether the run is broken
off behind its first part and resumed. How many devices there are is for the environment to say.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.engine import Settings
from gpumargin.errors import ResourceError
from gpumargin.prepare import Options
from gpumargin.publish import RunFolder
from gpumargin.run import margin_folder

_finish = RunFolder.finish_part


def _broken_off(folder: RunFolder, *arguments: Any) -> None:
    _finish(folder, *arguments)
    raise OSError(28, "No space left on device")


def results(book: Path, out: Path, model: MarginModel, memory: int, *, resumes: bool) -> dict[str, Any]:
    """Result hashes of a run, and whether it was resumed."""
    options = Options(settings=Settings(memory_budget=memory), book_path=str(book))
    if resumes:
        RunFolder.finish_part = _broken_off  # type: ignore[method-assign]
        try:
            margin_folder(book, model, out, options)
        except ResourceError:
            pass
        finally:
            RunFolder.finish_part = _finish  # type: ignore[method-assign]
    notes: list[str] = []
    folder = margin_folder(book, model, out, options, resumes=resumes, note=notes.append)
    parts = len(list((folder / "accounts").iterdir()))
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["results"]
    return {"results": found, "parts": parts, "resumed": any(note.startswith("resuming") for note in notes)}


def main() -> None:
    """Margins the book in every way of the plan."""
    books, out, model = Path(sys.argv[1]), Path(sys.argv[2]), load_model("derive-pm1")
    plan = json.loads(sys.argv[3])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: plan["threads"]])  # no device has started its threads yet
    pa.set_cpu_count(plan["threads"])
    found = [
        results(books / name, out / str(number), model, memory, resumes=resumes)
        for number, (name, memory, resumes) in enumerate(plan["ways"])
    ]
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
