"""A program that tests kill: it makes a run and dies at one of its file calls.

    python -m tests.killed OUT PLAN

PLAN is JSON: `book` (folder; null = tables made here, without JAX), `at` (number of the file call, null = none),
`after` (whether that call is still made), `resumes`, `year` (null = the clock as it is). Prints what came of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpumargin import identity
from gpumargin.digests import ColumnDigest, DigestState
from gpumargin.publish import RunFolder
from tests.failing import KILL, MEMORY, FailingOs, installed

PARTS, ROWS = 4, 5_000


def part_table(number: int) -> pa.Table:
    """Rows of one part."""
    rng = np.random.default_rng(number)
    return pa.table({"account_id": np.arange(number * ROWS, (number + 1) * ROWS), "equity": rng.normal(size=ROWS)})


def made_here(out: Path, *, resumes: bool) -> Path:
    """A run of made-up tables."""
    origin = {"book": "made here", "files": {}}
    with RunFolder(out, origin, resumes=resumes) as folder:
        if folder.published is not None:
            folder.point()
            return folder.published
        digest = ColumnDigest()
        if folder.finished:
            last = folder.record(len(folder.finished) - 1)
            digest = ColumnDigest(DigestState(bytes.fromhex(last.state["blocks"]), last.table("tail")))
        for number in range(len(folder.finished), PARTS):
            table = part_table(number)
            folder.add_part("accounts", table)
            digest.add(table)
            state = digest.state()
            folder.finish_part({"blocks": state.blocks.hex()}, {"tail": state.tail})
        folder.add_table("instruments", part_table(0))
        folder.add_rows("owners", map(part_table, range(PARTS)))
        run_id = identity.new_run_id({}, identity.datetime.now(identity.UTC))
        return folder.publish(run_id, {}, {"results": {"accounts": digest.hexdigest()}})


def margined(book: Path, out: Path, *, resumes: bool) -> Path:
    """A run of a book as the command line makes it."""
    from gpumargin.cli.process import prepare_process

    prepare_process()
    from gpumargin.catalogue import load_model
    from gpumargin.engine import Settings
    from gpumargin.prepare import Options
    from gpumargin.run import margin_folder

    options = Options(settings=Settings(memory_budget=MEMORY), book_path=str(book))
    return margin_folder(book, load_model("derive-pm1"), out, options, resumes=resumes)


def set_clock(year: int) -> None:
    """Lets run ids be made as if it were another year."""

    class Then(identity.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz).replace(year=year)

    identity.datetime = Then  # type: ignore[misc]


def main() -> None:
    """Makes the run of a plan."""
    out, plan = Path(sys.argv[1]), json.loads(sys.argv[2])
    if plan["year"]:
        set_clock(plan["year"])
    parts: list[int] = []
    finish = RunFolder.finish_part

    def finish_part(folder: RunFolder, *arguments: Any) -> None:
        finish(folder, *arguments)
        parts.append(len(folder.finished))

    RunFolder.finish_part = finish_part  # type: ignore[method-assign]
    failing = installed(FailingOs(plan["at"], KILL, after=plan["after"]))
    if plan["book"] is None:
        folder = made_here(out, resumes=plan["resumes"])
    else:
        folder = margined(Path(plan["book"]), out, resumes=plan["resumes"])
    print(json.dumps({"calls": len(failing.made), "run": folder.name, "parts": len(parts)}))  # noqa: T201


if __name__ == "__main__":
    main()
