"""Where reference cases live, and the one list of cases that nothing handles yet."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_CHOICES = (
    os.environ.get("GPUMARGIN_REFERENCE"),
    str(ROOT.parent / "shared" / "reference"),
    str(ROOT / "tests" / "vectors"),
)

# File -> why no model of this version can reproduce it. May only shrink.
NOT_YET = {
    **{
        f"exchange_vectors/{name}.json": "liquidation and auctions are not part of this version"
        for name in ("auction_price", "derive_auction", "dydx_liquidation")
    },
    **{f"risk_vectors/{name}.json": "reverse stress is not part of this version" for name in ("reverse_stress",)},
    **{
        f"risk_vectors/{name}.json": "historical, statistical and contagion models are not part of this version"
        for name in (
            "adl",
            "anti_procyclicality",
            "backtest",
            "cont_schaanning",
            "delta_gamma",
            "delta_normal",
            "fhs",
            "greenwood",
            "ledoit_wolf",
            "liquidation_linear",
            "liquidation_quadratic",
            "liquidation_scenario",
            "liquidity_addons",
            "monte_carlo",
            "nearest_correlation",
            "perp_cascade",
            "volatility",
        )
    },
}

# File -> form of case -> the input keys that tell it, and why nothing answers it yet. May only shrink.
NOT_YET_FORMS: dict[str, dict[str, tuple[set[str], str]]] = {
    "exchange_vectors/paradex_margin.json": {
        "socialised_loss": ({"insurance_fund", "bankruptcies"}, "liquidation is not part of this version"),
    },
}


def reference_folder() -> Path | None:
    """The folder of reference cases, None where this machine has none."""
    return next((Path(choice) for choice in _CHOICES if choice and Path(choice).is_dir()), None)


def read_cases(name: str) -> dict[str, Any] | None:
    """Contents of `FOLDER/FILE.json`, None where it is absent."""
    folder = reference_folder()
    path = None if folder is None else folder / name
    return json.loads(path.read_text("utf-8")) if path is not None and path.is_file() else None


def found_files() -> list[str]:
    """Every case file in the three folders, as `folder/file.json`."""
    folder = reference_folder()
    if folder is None:
        return []
    names = ("derive_vectors", "exchange_vectors", "risk_vectors")
    return sorted(f"{name}/{path.name}" for name in names for path in (folder / name).glob("*.json"))
