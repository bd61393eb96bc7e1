"""A published run checked by whoever has its folder: without JAX, the engine or anything that made it."""

from gpumargin.verification.findings import Verification
from gpumargin.verification.verify import DEFAULT_SAMPLE, verify_run

__all__ = ["DEFAULT_SAMPLE", "Verification", "verify_run"]
