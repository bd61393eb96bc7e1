"""What changed between two runs: who crossed a line, and which inputs moved equity and margin by how much."""

from gpumargin.difference.chain import diff
from gpumargin.difference.figures import FIGURES
from gpumargin.difference.outcome import EFFECTS, Difference

__all__ = ["EFFECTS", "FIGURES", "Difference", "diff"]
