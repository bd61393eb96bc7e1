"""Salts of accounts, derived from one secret that never enters a published folder."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path

from gpumargin.errors import ResourceError, UsageError

_BYTES = 32
SALT_BYTES = 16


def salt_of(master: bytes, snapshot: str, name: str) -> bytes:
    """Salt of one account in one snapshot, 16 bytes: a keyed hash that tells nothing of the others.

    Args:
      master: the secret.
      snapshot: what tells this snapshot from others, so that the ids of an account in two snapshots are not alike.
      name: of the account, from `proof.account_name`.
    """
    return hashlib.blake2b(f"{snapshot}\n{name}".encode(), digest_size=SALT_BYTES, key=master).digest()


def make_salt_file(path: Path) -> bytes:
    """Draws a secret and writes it where nobody but the owner can read it.

    Raises:
      ResourceError: it cannot be written, or the file is there already.
    """
    master = secrets.token_bytes(_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(master.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        message = f"cannot make the salt file {str(path)!r}: {error.strerror}"
        raise ResourceError(message) from error
    return master


def read_salt_file(path: Path) -> bytes:
    """The secret of a salt file: 32 bytes as hexadecimal digits.

    Raises:
      UsageError: no such file, not a secret, or one that others may read.
    """
    try:
        mode, text = path.stat().st_mode, path.read_text("ascii").strip()
        master = bytes.fromhex(text)
    except OSError as error:
        message = f"cannot read the salt file {str(path)!r}: {error.strerror}; name it with --salt-file"
        raise UsageError(message) from error
    except ValueError:
        master = b""
    if len(master) != _BYTES:
        message = f"{str(path)!r} is no salt file: expected {2 * _BYTES} hexadecimal digits"
        raise UsageError(message)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        message = f"others may read the salt file {str(path)!r}, so its salts hide nothing; chmod 600 it"
        raise UsageError(message)
    return master
