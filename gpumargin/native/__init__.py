"""What LLVM compiles for the processor at hand: the CPU's fast path, with the bits of the XLA path.

The loop over legs of a row, the steps from rows to accounts, and where names, legs and balances of a block lie and are
written.

Whoever lacks llvmlite, or margins by a rule that has no translation, gets the XLA path and the same answers.
"""

from importlib.util import find_spec


def is_available() -> bool:
    """Whether the compiler is installed."""
    return find_spec("llvmlite") is not None
