"""Bytes of a run folder: every file is there, no other is, each has the hash that it was published with."""

from __future__ import annotations

import re
from pathlib import Path

from gpumargin.publish import CHECKSUMS, file_digest
from gpumargin.verification.findings import Finding, Ledger

_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)\n?")
_HASH = "sha256 of the file"


def check_files(ledger: Ledger, folder: Path, check: str = "file hashes", *, apart: str | None = None) -> bool:
    """Compares every file of a folder with its `SHA256SUMS`.

    Args:
      ledger: takes the check.
      folder: a published folder.
      check: name of the check.
      apart: folder inside that was published later, with checksums of its own.

    Returns:
      Whether all files are as they were published.
    """
    findings: list[Finding] = []
    expected = _expected(folder, findings)
    found = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS and not (apart and path.is_relative_to(folder / apart))
    }
    for name in sorted({*expected, *found}):
        if name not in found:
            findings.append(Finding(_HASH, expected[name], "the file is missing", name))
        elif name not in expected:
            findings.append(Finding(_HASH, f"not in {CHECKSUMS}", file_digest(found[name]), name))
        elif (digest := file_digest(found[name])) != expected[name]:
            findings.append(Finding(_HASH, expected[name], digest, name))
    return ledger.add(check, f"files in {folder.name}/ against its {CHECKSUMS}", len(found), findings)


def _expected(folder: Path, findings: list[Finding]) -> dict[str, str]:
    """Hashes by path, in the order of the file, which is ascending."""
    path = folder / CHECKSUMS
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        findings.append(Finding("", "one line per file", f"cannot be read: {error}", CHECKSUMS))
        return {}
    expected: dict[str, str] = {}
    for row, line in enumerate(text.splitlines(keepends=True)):
        found = _LINE.fullmatch(line)
        if not found or not line.endswith("\n") or found[2] in expected:
            findings.append(Finding("", line.rstrip("\n"), "sha256, two spaces, path", CHECKSUMS, row))
        else:
            expected[found[2]] = found[1]
    return expected
