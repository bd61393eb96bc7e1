"""Reference cases as books, and small hand-made books, for the tests of the oracle."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.book import Row

AS_OF = datetime(2026, 3, 5, 8, tzinfo=UTC)
AS_OF_SECONDS = AS_OF.timestamp()
YEAR = 365 * 86400
PROJECT_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = Path(os.environ.get("GPUMARGIN_REFERENCE", PROJECT_ROOT / "../shared/reference")) / "derive_vectors"
_CONFIDENCES = ("forward_confidence", "rate_confidence", "vol_confidence")


def reference_cases(*names: str) -> list[Any]:
    """Cases of the named files as test parameters, each with its own or its file's `params`; a skip where absent."""
    missing = [name for name in names if not (_FOLDER / name).is_file()]
    if missing:
        reason = f"no {missing} in {_FOLDER}: set GPUMARGIN_REFERENCE"
        return [pytest.param({}, marks=pytest.mark.skip(reason=reason), id="absent")]
    cases = []
    for name in names:
        content = json.loads((_FOLDER / name).read_text())
        for case in content["cases"]:
            full = {"params": content.get("params")} | case
            cases.append(pytest.param(full, marks=pytest.mark.reference, id=case.get("id")))
    return cases


def after(seconds: float) -> datetime:
    """The moment so many seconds after the book's."""
    return AS_OF + timedelta(seconds=seconds)


def option(name: str, strike: float, kind: str, expiry: datetime, **terms: Any) -> Row:
    """An option on ETH settled in USDC unless the terms say otherwise."""
    row = {"instrument_id": name, "kind": "option", "underlying": "ETH", "settlement": "USDC", "strike": strike}
    return row | {"option_type": kind, "expiry": expiry} | terms


def perpetual(name: str = "ETH-PERP", **terms: Any) -> Row:
    """A perpetual on ETH settled in USDC unless the terms say otherwise."""
    return {"instrument_id": name, "kind": "perpetual", "underlying": "ETH", "settlement": "USDC"} | terms


def case_tables(case: Row) -> dict[str, list[Row]]:
    """One account of a reference case as contract tables; every option leg is an instrument of its own."""
    account, market = case["account"], case["market"]
    legs = account["options"]
    options = [option(f"o{i}", x["strike"], x["kind"], after(x["seconds_to_expiry"])) for i, x in enumerate(legs)]
    perp = {"mark_price": market["perp_price"], "confidence": market["perp_confidence"]}
    perp_leg = {"quantity": account["perp_size"], "unsettled": account["perp_unsettled_cash"]}
    amounts = {"USDC": account["cash"], "ETH": account["base_amount"]}
    return {
        "instruments": [*options, perpetual()],
        "marks": [
            {"instrument_id": "ETH-PERP", **perp},
            *marks_of_vols({f"o{i}": x["vol"] for i, x in enumerate(legs)}),
        ],
        "forwards": [forward_row(expiry) for expiry in market["expiries"]],
        "prices": [
            {"asset": "ETH", "price": market["spot"], "confidence": market["spot_confidence"]},
            {"asset": "USDC", "price": market["stable_price"]},
        ],
        "positions": [
            {"account_id": "a", "instrument_id": "ETH-PERP", **perp_leg},
            *positions("a", {f"o{i}": x["amount"] for i, x in enumerate(legs)}),
        ],
        "balances": [{"account_id": "a", "asset": asset, "amount": amount} for asset, amount in amounts.items()],
    }


def forward_row(expiry: Row) -> Row:
    """A forwards row of a case's expiry; the table's forward includes its fixed part."""
    row = {name: expiry[name] for name in ("forward_fixed", "rate", *_CONFIDENCES)}
    total = expiry["forward_fixed"] + expiry["forward_variable"]
    return row | {"underlying": "ETH", "expiry": after(expiry["seconds_to_expiry"]), "forward": total}


def positions(account_id: str, quantities: dict[str, float]) -> list[Row]:
    """Position rows of one account."""
    return [{"account_id": account_id, "instrument_id": name, "quantity": q} for name, q in quantities.items()]


def marks_of_vols(vols: dict[str, float]) -> list[Row]:
    """Marks that leave the price to the model."""
    return [{"instrument_id": name, "mark_iv": vol} for name, vol in vols.items()]
