"""Where the number of one account comes from: recomputed line by line from a run and its book, without JAX."""

from gpumargin.explain.account import Explanation, explain_account

__all__ = ["Explanation", "explain_account"]
