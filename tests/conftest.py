"""One numeric regime for every test: 64 bits, strict dtypes and ranks, two host devices, fixed seeds."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")  # read when jax starts its backend

import hypothesis
import jax
import numpy as np
import pyarrow as pa
import pytest

from gpumargin.pack import assets, buckets, contracts
from tests.sampled import share, share_of

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--share 2/6` leaves the second sixth of the tests chosen."""
    parser.addoption("--share", type=share, default="1/1", metavar="K/N", help="of the tests chosen, the K-th of N")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the share that was asked for; tests marked `gpu` skip, with the reason printed, where jax sees none."""
    place, shares = config.getoption("--share")
    is_chosen = {item: share_of(item.nodeid, shares) == place for item in items}
    config.hook.pytest_deselected(items=[item for item in items if not is_chosen[item]])
    items[:] = [item for item in items if is_chosen[item]]
    marked = [item for item in items if item.get_closest_marker("gpu")]
    reason = missing_gpu() if marked else None
    for item in marked if reason else []:
        item.add_marker(pytest.mark.skip(reason=str(reason)))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the name of the test alone."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


WIDTH, ASSETS = 32, 16


@pytest.fixture
def one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Books of a few legs and assets get one shape, so that tests of one model share its compiled programs.

    Wider buckets and more padding change no bit (`tests/test_same_bits.py`); the assets added are nobody's.
    """
    prices = assets.asset_prices

    def padded(table: pa.Table, column: str) -> dict[str, float]:
        found = prices(table, column)
        return found | {f"~{number}": 1.0 for number in range(-len(found) % ASSETS)}

    monkeypatch.setattr(buckets, "MIN_WIDTH", WIDTH)
    for module in (assets, contracts):
        monkeypatch.setattr(module, "asset_prices", padded)


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Says something that the log of a long test is to show."""

    def said(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201

    return said
