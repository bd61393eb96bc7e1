"""Cases are books of an account or two: they share one shape."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _shape(one_shape: None) -> None:
    """See `one_shape`."""
