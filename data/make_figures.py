"""Draws the figures that README shows: a generated book, its solvency snapshot and the report of that, made anew."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

SHOWN = ("stress", "ladder", "health")
FOLDER = Path(__file__).with_name("figures")
BOOK = ("--accounts", "20000", "--positions-per-account", "8", "--underlyings", "3", "--seed", "7")
COLOURS, MOST_BYTES = 32, 60_000


def main() -> None:
    """Makes all of them; a page that shows them loads little, so they have few colours."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        book, runs, drawn = place / "book", place / "runs", place / "figures"
        _call("generate", book, *BOOK)
        _call("snapshot", book, "--model", "derive-pm1", "--out", runs)
        _call("report", runs, "--figures", drawn)
        FOLDER.mkdir(exist_ok=True)
        for name in SHOWN:
            (FOLDER / f"{name}.png").write_bytes(_small((drawn / f"{name}.png").read_bytes()))


def _call(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "gpumargin", *map(str, arguments)], check=True)  # noqa: S603  our own verbs


def _small(png: bytes) -> bytes:
    """The picture in few colours."""
    out = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    if out.tell() > MOST_BYTES:
        message = f"a figure takes {out.tell():,} bytes, at most {MOST_BYTES:,} are shown"
        raise ValueError(message)
    return out.getvalue()


if __name__ == "__main__":
    main()
