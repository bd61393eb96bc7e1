"""Derive's PMRM_2 ("PM2") for one account of one underlying, one loop per expiry, leg and scenario.

A case has the shape of the reference cases: account {cash, perp_size, perp_unsettled_cash, collateral, options}, market
{spot, stable_price, perp_price, collateral, expiries, confidences}, params {vol_shock, factors, discount,
forward_contingency, contingency, skew, collateral} and `scenarios` [{spot, vol, dampening}]. Money is USDC; collateral
is divided by the price of USDC, notionals of contingencies are not. Source: reference page sections 2, 5, 7, 8.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.oracle.black import SECONDS_PER_YEAR, Option, Svi, black_value, svi_vol, vol_multiplier

Case = Mapping[str, Any]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Leg:
    """One option position."""

    strike: float
    is_call: bool
    amount: float
    vol: float


@dataclass(frozen=True)
class Expiry:
    """The option legs of one expiry and its market."""

    seconds: float
    fixed: float
    variable: float
    rate: float
    confidence: float
    legs: Sequence[Leg]

    @property
    def years(self) -> float:
        """Years of 365 days."""
        return self.seconds / SECONDS_PER_YEAR

    @property
    def discount(self) -> float:
        """Mark discount; a negative rate counts as 0."""
        return math.exp(-max(self.rate, 0.0) * self.years)

    def value(self, move: float, vols: Sequence[float]) -> float:
        """Net value at a spot level and one vol per leg."""
        forward = self.fixed + self.variable * move
        return sum(
            leg.amount
            * black_value(Option(leg.strike, leg.is_call, self.years, self.discount), forward=forward, vol=vol)
            for leg, vol in zip(self.legs, vols, strict=True)
        )

    @property
    def mark(self) -> float:
        """Net value now."""
        return self.value(1.0, [leg.vol for leg in self.legs])

    @property
    def naked(self) -> float:
        """Options short after netting calls and puts of one strike."""
        by_strike: dict[float, float] = {}
        for leg in self.legs:
            by_strike[leg.strike] = by_strike.get(leg.strike, 0.0) + leg.amount
        return sum(max(0.0, -amount) for amount in by_strike.values())


def read_expiries(case: Case) -> list[Expiry]:
    """The expiries that the account holds, vols from SVI where no leg gives one."""
    found = []
    for row in case["market"]["expiries"]:
        seconds = row["seconds_to_expiry"]
        legs = [leg for leg in case["account"]["options"] if leg["seconds_to_expiry"] == seconds]
        if legs:
            confidence = min(row["forward_confidence"], row["rate_confidence"], row["vol_confidence"])
            parts = (row["forward_fixed"], row["forward_variable"], row["rate"], confidence)
            found.append(Expiry(max(seconds, 0.0), *parts, [read_leg(leg, row.get("svi")) for leg in legs]))
    return found


def read_leg(leg: Case, svi: Case | None) -> Leg:
    """One leg, priced by its own vol or by the expiry's fit."""
    vol = leg.get("vol")
    if vol is None:
        assert svi is not None
        numbers = {name: svi[name] for name in ("a", "b", "rho", "m", "sigma", "forward")}
        vol = svi_vol(Svi(**numbers, years=svi["tau_years"]), strike=leg["strike"])
    return Leg(leg["strike"], leg["kind"] == "call", leg["amount"], vol)


def skew_factor(leg: Leg, expiry: Expiry, skew: Case, kind: str) -> float:
    """Factor on a leg's vol when the smile turns."""
    root = math.sqrt(expiry.years)
    cap = skew[f"{kind}_cap"] + skew[f"{kind}_slope"] * root
    k_star = max(skew["min_k_star"], root * skew["width"] * (skew["vol_static"] + root * skew["vol_slope"]))
    k = math.log(leg.strike / (expiry.fixed + expiry.variable))
    k = abs(k) if kind == "abs" else k
    turn = min(cap, k * cap / k_star) if k >= 0.0 else max(-cap, k * cap / k_star)
    return max(1.0 + turn, 0.0)


def shocked_vol(leg: Leg, expiry: Expiry, params: Case, rule: str) -> float:
    """Vol of a leg under one rule."""
    if rule.startswith("skew_"):
        return leg.vol * skew_factor(leg, expiry, params["skew"], rule.removeprefix("skew_"))
    vol = leg.vol * vol_multiplier(rule, seconds=expiry.seconds, shock=params["vol_shock"])
    return max(vol, params["vol_shock"]["min_up_vol"]) if rule == "up" else vol


def static_discounts(expiry: Expiry, numbers: Case) -> tuple[float, float]:
    """Factors on a positive and on a negative shocked value of the expiry."""
    rate = max(expiry.rate, 0.0)
    positive = numbers["pos_static"] * math.exp(
        -expiry.years * (rate * numbers["pos_rate_mult"] + numbers["pos_rate_add"])
    )
    negative = numbers["neg_static"] / math.exp(
        -expiry.years * (rate * numbers["neg_rate_mult"] + numbers["neg_rate_add"])
    )
    return positive, min(1.0 / expiry.discount, negative)


def expiry_pnl(expiry: Expiry, params: Case, scenario: Case) -> float:
    """What one expiry adds to the P&L of a scenario, before dampening."""
    vols = [shocked_vol(leg, expiry, params, scenario["vol"]) for leg in expiry.legs]
    shocked = expiry.value(scenario["spot"], vols)
    positive, negative = static_discounts(expiry, params["discount"])
    pnl = shocked * (positive if shocked >= 0.0 else negative) - expiry.mark
    return -abs(pnl) if scenario["vol"].startswith("skew_") else pnl


def basis_pnl(expiries: Sequence[Expiry], contingency: Case) -> float:
    """Forward contingency, <= 0: each expiry's worse side, never netted, not dampened."""
    total = 0.0
    for expiry in expiries:
        vols = [leg.vol for leg in expiry.legs]
        sides = [expiry.value(contingency[side], vols) - expiry.mark for side in ("spot_up", "spot_down")]
        total += min(*sides, 0.0) * (contingency["add"] + contingency["mult"] * expiry.years)
    return total


def margin_case(case: Case, scenarios: Sequence[Case]) -> Figures:
    """Every figure of a case under PM2, under the names and signs of the reference cases."""
    account, market, params = case["account"], case["market"], case["params"]
    expiries, rules = read_expiries(case), {c["name"]: c for c in params["collateral"]}
    feeds = {c["name"]: c for c in market["collateral"]}
    value = {c["name"]: c["amount"] * feeds[c["name"]]["price"] / market["stable_price"] for c in account["collateral"]}
    moved = sum(amount for name, amount in value.items() if rules[name]["risk_cancelling"])
    perp = account["perp_size"] * market["perp_price"]
    pnl = [
        ((perp + moved) * (s["spot"] - 1.0) + sum(expiry_pnl(e, params, s) for e in expiries)) * s["dampening"]
        for s in scenarios
    ]
    options = sum(expiry.mark for expiry in expiries)
    due = account["perp_unsettled_cash"] if account["perp_size"] != 0.0 else 0.0
    figures = {
        "scenario_pnl": pnl,
        "forward_contingency": basis_pnl(expiries, params["forward_contingency"]),
        "option_mtm": options,
        "collateral_mtm": sum(value.values()),
        "portfolio_mtm": account["cash"] + due + options + sum(value.values()),
    }
    return figures | net_margins(case, expiries, figures, value)


def net_margins(case: Case, expiries: Sequence[Expiry], figures: Case, value: Mapping[str, float]) -> Figures:
    """Contingencies and net margins."""
    account, market, params = case["account"], case["market"], case["params"]
    rules, numbers = {c["name"]: c for c in params["collateral"]}, params["contingency"]
    spot, naked = market["spot"], sum(expiry.naked for expiry in expiries)
    size = spot * abs(account["perp_size"])
    haircuts = {
        side: sum(value[name] * rules[name][f"{side}_haircut{more}"] for name in value)
        for side, more in (("mm", ""), ("im", "_extra"))
    }
    maintenance = size * numbers["mm_perp"] + spot * naked * numbers["mm_option"] + haircuts["mm"]
    extra = size * numbers["im_perp_extra"] + spot * naked * numbers["im_option_extra"] + haircuts["im"]
    factor = params["factors"]["im"] + max(0.0, numbers["peg_threshold"] - market["stable_price"]) * float(
        numbers["peg_factor"]
    )
    loss = min(figures["forward_contingency"], *figures["scenario_pnl"])
    low = oracle_charge(case, expiries, value)
    return {
        "maintenance_margin": figures["portfolio_mtm"] + loss * params["factors"]["mm"] - maintenance,
        "initial_margin": figures["portfolio_mtm"] + loss * factor - maintenance - extra - low,
        "oracle_contingency": -low,
        "effective_im_factor": factor,
        "mm_perp_contingency": -size * numbers["mm_perp"],
        "im_perp_contingency_extra": -size * numbers["im_perp_extra"],
        "mm_option_contingency": -spot * naked * numbers["mm_option"],
        "im_option_contingency_extra": -spot * naked * numbers["im_option_extra"],
        "mm_collateral_contingency": -haircuts["mm"],
        "im_collateral_contingency_extra": -haircuts["im"],
    }


def oracle_charge(case: Case, expiries: Sequence[Expiry], value: Mapping[str, float]) -> float:
    """Charge for feeds of low confidence: the perpetual, every expiry, every collateral."""
    account, market, numbers = case["account"], case["market"], case["params"]["contingency"]

    def charge(confidence: float, notional: float) -> float:
        is_low = confidence < numbers["conf_threshold"]
        return (1.0 - confidence) * float(numbers["conf_scale"]) * notional if is_low else 0.0

    shared = market["spot_confidence"]
    if account["perp_size"] != 0.0:
        shared = min(shared, market["perp_confidence"])
    total = charge(shared, market["spot"] * abs(account["perp_size"]))
    for expiry in expiries:
        total += charge(min(shared, expiry.confidence), market["spot"] * sum(abs(leg.amount) for leg in expiry.legs))
    for feed in market["collateral"]:
        if feed["name"] in value:
            total += charge(min(feed["confidence"], market["spot_confidence"]), value[feed["name"]])
    return total
