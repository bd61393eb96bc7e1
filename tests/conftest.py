"""One numeric regime for every test: 64 bits, strict dtypes and ranks, two host devices, fixed seeds."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")  # read when jax starts its backend

import hypothesis
import jax
import numpy as np
import pytest

REGIME = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",  # a float32 value that meets a float64 one is an error
    "jax_numpy_rank_promotion": "raise",  # so is an axis that nobody asked for
}

hypothesis.settings.register_profile("house", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    """Sets the regime before anything compiles."""
    for name, value in REGIME.items():
        jax.config.update(name, value)


def missing_gpu() -> str | None:
    """Why tests marked `gpu` cannot run here; None where they can."""
    try:
        jax.devices("gpu")
    except RuntimeError as error:
        return f"needs a GPU, jax sees {[str(device) for device in jax.devices()]}: {str(error).splitlines()[0]}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` skip, with the reason printed, where jax sees none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    reason = missing_gpu() if marked else None
    for item in marked if reason else []:
        item.add_marker(pytest.mark.skip(reason=str(reason)))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the name of the test alone."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Says something that the log of a long test is to show."""

    def said(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201

    return said
