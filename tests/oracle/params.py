"""Parameter sets typed by hand from the reference page, section 6.2, and one for the correlated model."""

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
