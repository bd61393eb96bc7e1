"""The command line: it parses, calls and prints. Importing it imports nothing heavy; verbs load what they need."""

from gpumargin.cli.app import main

__all__ = ["main"]
