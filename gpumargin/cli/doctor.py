"""The verb `doctor`: what this machine offers, what falls back and why."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gpumargin.cli.options import FormatOption
from gpumargin.cli.process import compile_cache, prepare_process, usable_cores
from gpumargin.cli.render import Format, emit

if TYPE_CHECKING:
    from gpumargin.doctor import Finding


def doctor(*, form: FormatOption = Format.TABLE) -> None:
    """Versions, devices, driver, precision, cache and memory: what falls back and why."""
    prepare_process()
    import polars as pl

    from gpumargin.doctor import diagnose

    found = [*diagnose(), _cores(), _cache()]
    emit(pl.DataFrame(found, schema=["topic", "state", "detail"], orient="row"), form, keys=3)


def _cores() -> Finding:
    from gpumargin.doctor import Finding

    flags = os.environ.get("XLA_FLAGS", "")
    return Finding("host cores", "ok", f"{usable_cores()} usable; XLA_FLAGS is {flags!r}")


def _cache() -> Finding:
    from gpumargin.doctor import Finding

    cache = compile_cache()
    if cache.refusal:
        return Finding("compile cache", "warning" if cache.is_suspicious else "note", f"off: {cache.refusal}")
    files = [path.stat().st_size for path in cache.folder.iterdir() if path.is_file()]
    return Finding("compile cache", "ok", f"{cache.folder}: {len(files):,} files, {sum(files) / 2**20:.1f} MiB")
