"""Claims about real lending accounts; skipped where the files are not on this machine."""

from __future__ import annotations

import numpy as np
import pytest

from data.check_aave_health import FILES, accounts_of, by_account, by_asset, data_folder, errors, explained


def needs(version: str) -> pytest.MarkDecorator:
    path = data_folder() / "positions" / FILES[version]
    return pytest.mark.skipif(not path.is_file(), reason=f"{path.name} is not here; set GPUMARGIN_DATA")


@pytest.mark.slow
@pytest.mark.parametrize("version", [pytest.param(v, marks=needs(v)) for v in FILES])
def test_health_factors_follow_from_each_accounts_own_threshold(version: str) -> None:
    frame = accounts_of(version)
    assert np.abs(errors(frame, *by_account(frame))).max() < 1e-9


@needs("v3")
def test_health_factors_follow_from_the_model_files_numbers_and_the_accounts_mode() -> None:
    frame = explained(accounts_of("v3"))
    found = np.abs(errors(frame, *by_asset(frame)))
    assert len(found) > 300
    assert found.max() < 4e-4  # amounts and totals were read minutes apart
