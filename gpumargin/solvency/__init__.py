"""Solvency snapshot of a run: a commitment to every account, what the book loses in stress, and inclusion proofs."""
