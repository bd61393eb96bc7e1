"""A process that reads what others have written, under limits; every attempt is a fork of it.

Lines of JSON in: `{"op": "tables", "paths": [...]}`. Lines of JSON out, one per request: outcomes of the paths in
order, fewer than paths where the fork died; the signal that ended it, its peak memory, its time. Seconds are those of
the processor, of which a fork has ten for each path; the wall's would be those of whatever else the machine does.

`tables` reads single files named `TABLE.suffix` or `TABLE.anything.suffix`, `check` runs the verb on book folders, and
`stream` and `large-stream` read book folders part by part.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

ADDRESSES = 3 << 30
CPU_SECONDS, WALL_SECONDS = 10, 60.0


def _digest(tables: dict[str, Any]) -> str:
    from gpumargin.digests import table_digest

    return " ".join(f"{name}:{table_digest(table)[:16]}" for name, table in sorted(tables.items()))


def _tables(path: Path) -> tuple[int, str]:
    from gpumargin.schema import TABLES
    from gpumargin.tables import read_tables

    name = path.name.split(".")[0]
    return 0, _digest(dict(read_tables(TABLES, {name: path}).tables))


def _check(path: Path) -> tuple[int, str]:
    from typer.testing import CliRunner

    from gpumargin.cli.app import app

    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check", str(path)])
    return done.exit_code, " ".join((done.stdout + done.stderr).split())[:4000]


def _stream(path: Path, memory: int = 1000) -> tuple[int, str]:
    from gpumargin.tables import open_book

    rows = 0
    for part in open_book(path, memory=memory).parts(lambda *_: None, path / ".scratch"):
        rows += part.num_rows("positions")
    return 0, str(rows)


OPS = {"tables": _tables, "check": _check, "stream": _stream, "large-stream": partial(_stream, memory=1 << 28)}


def _attempt(op: str, path: Path) -> tuple[int, str]:
    from gpumargin.cli.outcome import _ending
    from gpumargin.errors import InputError

    try:
        return OPS[op](path)
    except InputError as error:
        return 3, str(error)
    except Exception as error:  # noqa: BLE001  every ending is an outcome
        return _ending(error)


def _work(request: dict[str, Any], write: int) -> None:
    """What the fork does: one line per path."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS * len(request["paths"]), -1))
    with os.fdopen(write, "w") as out, contextlib.redirect_stdout(io.StringIO()):
        for path in request["paths"]:
            start = time.process_time()
            code, words = _attempt(request["op"], Path(path))
            out.write(json.dumps([code, words, time.process_time() - start]) + "\n")
            out.flush()


def _forked(request: dict[str, Any]) -> dict[str, Any]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _work(request, write)
        os._exit(0)
    os.close(write)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS * len(request["paths"]))
    with os.fdopen(read) as lines:
        outcomes = [json.loads(line) for line in lines if line.endswith("\n")]
    _, status, usage = os.wait4(pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return {"outcomes": outcomes, "signal": ended, "peak": usage.ru_maxrss << 10, "seconds": usage.ru_utime}


def main() -> None:
    """Answers requests until there are no more."""
    warnings.simplefilter("ignore")  # threads of libraries and forks: no library has started one before the fork
    import gpumargin.checks
    import gpumargin.cli.app
    import gpumargin.cli.check
    import gpumargin.digests
    import gpumargin.tables  # noqa: F401

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
