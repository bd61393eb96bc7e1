"""Seeded synthetic books: the same tables for tests, benchmarks and demonstrations."""

from gpumargin.synth.book import Summary, generate_book

__all__ = ["Summary", "generate_book"]
