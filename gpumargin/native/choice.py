"""Which loops over legs and accounts a device runs."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax

from gpumargin import native
from gpumargin_kernels.steps import RowSteps, row_steps
from gpumargin_kernels.tally import RowStage, row_stage

LegLoopChoice = Literal["auto", "xla"]


class LegLoop(NamedTuple):
    """How legs are summed, and accounts made of them, on a device.

    Attributes:
      name: `native` or `xla`.
      rows: see `gpumargin_kernels.tally.row_stage`.
      steps: see `gpumargin_kernels.steps.row_steps`.
      chunk: rows that XLA handles together; None = all of a bucket.
    """

    name: str
    rows: RowStage
    steps: RowSteps
    chunk: int | None


def leg_loop(device: jax.Device, chunk: int | None, choice: LegLoopChoice) -> LegLoop:
    """The leg loop of a device: on a CPU the native one where it is installed, everywhere else XLA's; same bits."""
    if choice == "auto" and device.platform == "cpu" and native.is_available():
        from gpumargin.native.stage import native_row_stage  # its compiler is optional
        from gpumargin.native.steps import native_row_steps

        return LegLoop("native", native_row_stage, native_row_steps, chunk)
    return LegLoop("xla", row_stage, row_steps, chunk)
