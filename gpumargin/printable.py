"""Text of a book as it may be shown: nothing in it acts on a terminal, a page or a reader's eye."""

from __future__ import annotations

import re
import unicodedata

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # control sequences: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, device strings
    r"|\x1b[ -/]*[0-~]?"
)
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def clean(value: object) -> str:
    """Text without escape sequences, control characters and marks that change the direction of reading."""
    text = _ESCAPES.sub("", str(value))
    return text if text.isprintable() else "".join(c for c in text if unicodedata.category(c) not in _HIDDEN)
