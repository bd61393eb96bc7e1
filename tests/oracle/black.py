"""Black-76, SVI and the forward split in plain floats: the pricing primitives of the oracle.

Units: prices per 1 of underlying, vol decimal per sqrt-year, time in years of 365 days, vega per 1.00, theta per year.
Source: the project's Derive reference page, sections 2.1 to 2.3.
"""

import math
from dataclasses import dataclass

SECONDS_PER_YEAR = 365 * 86400
SETTLEMENT_WINDOW_SECONDS = 1800.0
# From this total vol on a call is worth its forward and a put its strike; below the floor a price is intrinsic.
TOTAL_VOL_CAP = 24.0
FLOOR = 1e-18
SVI_VARIANCE_CAP = 144.0


@dataclass(frozen=True)
class Option:
    """One European option on a forward: `strike`, `is_call`, `years` to expiry, `discount` factor."""

    strike: float
    is_call: bool
    years: float
    discount: float = 1.0


@dataclass(frozen=True)
class Sensitivities:
    """Derivatives of one option: by forward (`delta`, `gamma`), per 1.00 of vol (`vega`), per year of passing time."""

    delta: float
    gamma: float
    vega: float
    theta: float


def normal_cdf(x: float) -> float:
    """Standard normal distribution function, exact to rounding in both tails."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def normal_density(x: float) -> float:
    """Standard normal density; 0 far out, never an overflow."""
    return math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def _d1_and_total_vol(option: Option, forward: float, vol: float) -> tuple[float, float, float]:
    """d1, total vol and moneyness K/F, the last two kept off zero."""
    total_vol = max(vol * math.sqrt(option.years), FLOOR)
    moneyness = max(option.strike / forward, FLOOR)
    return (0.5 * total_vol * total_vol - math.log(moneyness)) / total_vol, total_vol, moneyness


def _limit_value(option: Option, forward: float, vol: float) -> float | None:
    """Value in the three named limits, None where the formula applies. Zero strike is tested before zero forward."""
    if option.strike == 0.0:
        return forward * option.discount if option.is_call else 0.0
    if forward == 0.0:
        return 0.0 if option.is_call else option.strike * option.discount
    if vol * math.sqrt(option.years) >= TOTAL_VOL_CAP:
        return (forward if option.is_call else option.strike) * option.discount
    return None


def black_value(option: Option, *, forward: float, vol: float) -> float:
    """Black-76 value, intrinsic at zero time or vol. The side out of the money is computed, the other by parity."""
    limit = _limit_value(option, forward, vol)
    if limit is not None:
        return limit
    d1, total_vol, moneyness = _d1_and_total_vol(option, forward, vol)
    d2 = d1 - total_vol
    if moneyness >= 1.0:
        call = max(normal_cdf(d1) - moneyness * normal_cdf(d2), 0.0)
        put = call + moneyness - 1.0
    else:
        put = max(moneyness * normal_cdf(-d2) - normal_cdf(-d1), 0.0)
        call = put + 1.0 - moneyness
    if option.is_call:
        return min(call, 1.0) * forward * option.discount
    return min(max(put, 0.0) * forward, option.strike) * option.discount


def _limit_delta(option: Option, forward: float, vol: float) -> float | None:
    """Forward delta in the three named limits, None where the formula applies."""
    if _limit_value(option, forward, vol) is None:
        return None
    if option.strike > 0.0 and forward == 0.0:
        return 0.0 if option.is_call else -option.discount
    return option.discount if option.is_call else 0.0


def black_sensitivities(option: Option, *, forward: float, vol: float) -> Sensitivities:
    """Closed-form derivatives; gamma, vega and theta are 0 in every limit, theta leaves the discount's drift out."""
    limit = _limit_delta(option, forward, vol)
    if limit is not None:
        return Sensitivities(limit, 0.0, 0.0, 0.0)
    d1, total_vol, _ = _d1_and_total_vol(option, forward, vol)
    delta = option.discount * (normal_cdf(d1) if option.is_call else -normal_cdf(-d1))
    if vol == 0.0 or option.years == 0.0:
        return Sensitivities(delta, 0.0, 0.0, 0.0)
    density = option.discount * normal_density(d1)
    root = math.sqrt(option.years)
    return Sensitivities(
        delta=delta,
        gamma=density / (forward * total_vol),
        vega=forward * density * root,
        theta=-forward * density * vol / (2.0 * root),
    )


def digital_value(option: Option, *, forward: float, vol: float) -> float:
    """Value of 1 paid in the money: the probability of expiring there; half on the strike itself with nothing left."""
    if option.strike == 0.0 or forward == 0.0 or vol * math.sqrt(option.years) == 0.0:
        above = 0.5 if forward == option.strike else float(forward > option.strike)
        return option.discount * (above if option.is_call else 1.0 - above)
    d1, total_vol, _ = _d1_and_total_vol(option, forward, vol)
    d2 = d1 - total_vol
    return option.discount * normal_cdf(d2 if option.is_call else -d2)


def digital_sensitivities(option: Option, *, forward: float, vol: float) -> Sensitivities:
    """Derivatives of `digital_value`: through d2 alone, whose own are 1 / (F v), -d1 / vol and -d1 / (2 years)."""
    if option.strike == 0.0 or forward == 0.0 or vol * math.sqrt(option.years) == 0.0:
        return Sensitivities(0.0, 0.0, 0.0, 0.0)
    d1, total_vol, _ = _d1_and_total_vol(option, forward, vol)
    slope = option.discount * normal_density(d1 - total_vol) * (1.0 if option.is_call else -1.0)
    return Sensitivities(
        delta=slope / (forward * total_vol),
        gamma=-slope * d1 / (forward * total_vol) ** 2,
        vega=-slope * d1 / vol,
        theta=slope * d1 / (2.0 * option.years),
    )


@dataclass(frozen=True)
class Svi:
    """One expiry's SVI print; `forward` and `years` belong to the print, not to the live market."""

    a: float
    b: float
    rho: float
    m: float
    sigma: float
    forward: float
    years: float


def svi_vol(svi: Svi, *, strike: float) -> float:
    """Implied vol at a strike, decimal per sqrt-year; 0 at strike 0.

    Raises:
        ValueError: the total variance is negative.
    """
    if strike == 0.0:
        return 0.0
    bound = 4.0 * math.sqrt(svi.a + svi.b * svi.sigma)
    k = min(max(math.log(strike / svi.forward), -bound), bound)
    variance = svi.a + svi.b * (svi.rho * (k - svi.m) + math.hypot(k - svi.m, svi.sigma))
    if variance < 0.0:
        message = f"expected an SVI total variance >= 0, found {variance!r} at strike {strike!r}: check the parameters"
        raise ValueError(message)
    return math.sqrt(min(variance, SVI_VARIANCE_CAP) / svi.years)


def forward_split(*, spot: float, diff: float, seconds: float, window_average: float = 0.0) -> tuple[float, float]:
    """Fixed and variable part of a forward `seconds` before expiry; the fixed part grows over the last half hour."""
    if seconds >= SETTLEMENT_WINDOW_SECONDS:
        return 0.0, spot + diff
    open_share = seconds / SETTLEMENT_WINDOW_SECONDS
    return window_average * (1.0 - open_share), (spot + diff) * open_share


PIVOT_SECONDS = 30 * 86400.0


def vol_multiplier(rule: str, *, seconds: float, shock: dict[str, float]) -> float:
    """Multiplier of a vol under `up`, `none` or `down`; shorter tenors move more, at most as the floor tenor does.

    `shock` holds range_up, range_down, short_term_power, long_term_power, dte_floor_days (reference page, section 4).
    """
    ratio = PIVOT_SECONDS / max(seconds, shock["dte_floor_days"] * 86400.0)
    power = shock["short_term_power"] if seconds <= PIVOT_SECONDS else shock["long_term_power"]
    growth = math.exp(power * math.log(ratio))
    multipliers = {
        "none": 1.0,
        "up": 1.0 + shock["range_up"] * growth,
        "down": max(0.0, 1.0 - shock["range_down"] * growth),
    }
    return multipliers[rule]
