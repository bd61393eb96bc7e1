"""The sample book that ships with the package."""

from pathlib import Path


def sample_path() -> Path:
    """Folder of the sample book: made up, 400 accounts, options and perpetuals on BTC and ETH."""
    return Path(__file__).parent / "book"
