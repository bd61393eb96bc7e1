"""Parameter sets typed by hand from the reference page, sections 6.1 and 6.2, and one for the correlated model."""

from typing import Any

_RULES = ("up", "none", "down")
_VOL_POWERS = {"short_term_power": 0.3, "long_term_power": 0.13, "dte_floor_days": 1.0}
_DISCOUNT = {"static": 0.95, "rate_mult": 1.0, "rate_add": 0.12}


def _grid(top: float, inner: tuple[float, ...], bottom: float) -> list[dict[str, Any]]:
    """Spot shocks from high to low: the two ends with vol up only, the inner ones with every vol rule."""
    middle = [{"spot": spot, "vol": rule} for spot in inner for rule in _RULES]
    return [{"spot": top, "vol": "up"}, *middle, {"spot": bottom, "vol": "up"}]


PM1_CHAIN_2025_02: dict[str, Any] = {
    "scenarios": _grid(1.18, (1.135, 1.09, 1.045, 1.0, 0.955, 0.91, 0.865), 0.82),
    "vol_shock": {"range_up": 0.50, "range_down": 0.275, **_VOL_POWERS},
    "im_factor": 1.25,
    "discount": _DISCOUNT,
    "forward_contingency": {"spot_up": 1.045, "spot_down": 0.955, "add": 0.5, "mult": 2.0},
    "contingency": {
        "peg_threshold": 0.99,
        "peg_factor": 4.0,
        "conf_threshold": 0.55,
        "conf_scale": 1.0,
        "base": 0.03,
        "perp": 0.03,
        "option": 0.015,
    },
}

PM1_SCRIPT: dict[str, Any] = {
    "scenarios": _grid(1.2, (1.15, 1.1, 1.05, 1.0, 0.95, 0.9, 0.85), 0.8),
    "vol_shock": {"range_up": 0.60, "range_down": 0.30, **_VOL_POWERS},
    "im_factor": 1.25,
    "discount": _DISCOUNT,
    "forward_contingency": {"spot_up": 1.05, "spot_down": 0.95, "add": 1.0, "mult": 1.2},
    "contingency": {
        "peg_threshold": 0.99,
        "peg_factor": 4.0,
        "conf_threshold": 0.55,
        "conf_scale": 1.0,
        "base": 0.03,
        "perp": 0.03,
        "option": 0.02,
    },
}

# Invented numbers, used by tests alone: two correlated units, and any other unit on its own.
CORRELATED_EXAMPLE: dict[str, Any] = {
    "range": {"default": 0.2, "BTC": 0.15},
    "scenarios": [
        *({"move": move, "vol": rule, "weight": 1.0} for move in (1.0, 0.5, 0.0, -0.5, -1.0) for rule in _RULES),
        {"move": 3.0, "vol": "none", "weight": 0.35},
        {"move": -3.0, "vol": "none", "weight": 0.35},
    ],
    "vol_shock": {"range_up": 0.45, "range_down": 0.3, **_VOL_POWERS},
    "naked_option_rate": 0.01,
    "im_factor": 1.3,
    "correlation": {"units": ["BTC", "ETH"], "matrix": [[1.0, 0.7], [0.7, 1.0]]},
    "collateral": {
        "initial": {"weights": {"USD": 1.0, "USDC": 1.0, "BTC": 0.9}, "default_weight": 0.5, "liability_weight": 1.1},
        "maintenance": {
            "weights": {"USD": 1.0, "USDC": 1.0, "BTC": 0.95},
            "default_weight": 0.6,
            "liability_weight": 1.05,
        },
    },
}

_OPTION_NAMES = (
    "max_spot", "min_spot", "mm_call_spot", "mm_put_spot", "mm_put_mtm", "unpaired_im", "unpaired_mm", "mm_offset"
)  # fmt: skip
_SM_COMMON: dict[str, Any] = {
    "oracle": {
        **{f"{name}_threshold": {"default": 0.55} for name in ("perp", "option", "base")},
        "factor": {"default": 1.0},
    },
    "depeg": {"threshold": {"default": 0.99}, "factor": {"default": 2.0}},
}


def _by_market(names: tuple[str, ...], rows: dict[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    """Rows of numbers by market as columns by name."""
    return {name: {market: row[i] for market, row in rows.items()} for i, name in enumerate(names)}


SM_SCRIPT: dict[str, Any] = _SM_COMMON | {
    "perp": _by_market(("mm", "im"), {"default": (0.065, 0.10)}),
    "option": _by_market(_OPTION_NAMES, {"default": (0.15, 0.13, 0.09, 0.09, 0.09, 1.2, 1.1, 1.05)}),
    "base": _by_market(
        ("margin_factor", "im_scale"), {"default": (0.0, 0.0), "ETH": (0.8, 0.9375), "BTC": (0.75, 0.93)}
    ),
}

_LARGE = (0.15, 0.13, 0.09, 0.09, 0.09, 1.2, 1.1, 1.05)
SM_CHAIN_2025_12: dict[str, Any] = _SM_COMMON | {
    "perp": _by_market(
        ("mm", "im"),
        {
            "default": (0.2, 0.33333),
            "ETH": (0.05, 0.066),
            "BTC": (0.05, 0.066),
            "SOL": (0.067, 0.077),
            "HYPE": (0.10, 0.15),
            "AAVE": (0.067, 0.10),
            "PEPE": (0.143, 0.20),
            "XRP": (0.067, 0.10),
        },
    ),
    "option": _by_market(
        _OPTION_NAMES,
        {
            "default": (0.35, 0.30, 0.18, 0.18, 0.18, 1.4, 1.3, 1.05),
            "ETH": _LARGE,
            "BTC": _LARGE,
            "AAVE": _LARGE,
            "SOL": (0.24, 0.18, 0.14, 0.14, 0.14, 1.25, 1.2, 1.05),
            "HYPE": (0.30, 0.25, 0.18, 0.18, 0.18, 1.3, 1.25, 1.05),
            "SNX": (0.35, 0.30, 0.15, 0.15, 0.15, 1.4, 1.3, 1.05),
        },
    ),
    "base": _by_market(
        ("margin_factor", "im_scale"),
        {
            "default": (0.0, 0.0),
            "ETH": (0.8, 0.9375),
            "BTC": (0.75, 0.93),
            "HYPE": (0.6, 0.834),
            "AAVE": (0.74, 0.9),
            "SNX": (0.0, 0.0),
            "USDT": (0.98, 0.92),
            "wstETH": (0.8, 0.9),
            "fxUSDC": (0.995, 0.995),
            "DRV": (0.15, 0.66),
        },
    ),
}
