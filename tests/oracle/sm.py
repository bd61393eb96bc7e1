"""Derive's standard margin for whole books, one loop per account, market, expiry and strike.

`params` holds numbers by market, each with a default: perp {mm, im}, option {max_spot, min_spot, mm_call_spot,
mm_put_spot, mm_put_mtm, unpaired_im, unpaired_mm, mm_offset}, oracle {perp_threshold, option_threshold,
base_threshold, factor}, depeg {threshold, factor}, base {margin_factor, im_scale}. The page gives net margins; what
counts of perpetuals' cash and tokens is part of the balance, the rest is the requirement, with its sign turned. Source:
reference page sections 1, 3, 7, 8.

Readings of our own: every asset but cash is a market; a base balance is margined only while it is collateral, a
negative one counts as the debt that it is; only linear vanilla options and perpetuals have a rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.oracle.book import Account, Holding, Market, Row, Tables, account_row, number, read_accounts, unit_money
from tests.oracle.contract import ScenarioCache

MODEL = "derive-sm"
ACCOUNTING = "USDC"
NO_SHOCK = {"range_up": 0.0, "range_down": 0.0, "short_term_power": 0.0, "long_term_power": 0.0, "dte_floor_days": 1.0}
KINDS = ("initial", "maintenance")
Params = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Numbers:
    """Parameters of one market."""

    params: Params
    name: str

    def __call__(self, group: str, key: str) -> float:
        """One number, the default where the market is not listed."""
        table = self.params[group][key]
        return table.get(self.name, table["default"])


@dataclass(frozen=True)
class Place:
    """One market of one account: USD spot, confidences, amount of the token, positions."""

    name: str
    spot: float
    confidence: float
    base: float
    perps: list[Holding]
    expiries: list[list[Holding]]

    @property
    def options(self) -> list[Holding]:
        """Option legs of all expiries."""
        return [leg for legs in self.expiries for leg in legs]

    @property
    def perp_confidence(self) -> float:
        """Least confidence of spot and the perpetuals held."""
        return min([self.confidence, *(perp.contract.confidence for perp in self.perps)])


def margin_book(tables: Tables, params: Params, *, as_of_seconds: float) -> dict[str, list[Row]]:
    """Accounts and markets of a book under standard margin, in USDC.

    Args:
        tables: contract tables as lists of row dicts.
        params: see the module.
        as_of_seconds: seconds since 1970 in UTC.

    Returns:
        `accounts` sorted by (account_id, pool) and `units` sorted by (account_id, pool, unit).

    Raises:
        ValueError: a number the model needs is missing.
        NotImplementedError: a contract the model has no rule for.
    """
    market = Market(tables, accounting=ACCOUNTING, as_of=as_of_seconds)
    cache = ScenarioCache(vol_shock=NO_SHOCK)
    accounts: list[Row] = []
    units: list[Row] = []
    for account in read_accounts(tables, market, model=MODEL):
        rows = [place_row(account, place, market, params, cache) for place in places(account, market)]
        margins = {kind: sum(number(row, f"{kind}_margin") for row in rows) for kind in KINDS}
        collateral = dict.fromkeys(KINDS, cash_value(account, market))
        counted = {
            kind: sum(number(row, "unrealised_pnl") + number(row, f"token_{kind}") for row in rows) for kind in KINDS
        }
        row = account_row(account, market, rows, margins=margins, collateral=collateral, counted=counted)
        accounts.append(row | {"model": MODEL, "worst_loss": 0.0})
        units.extend(rows)
    return {"accounts": accounts, "units": units}


def cash_value(account: Account, market: Market) -> float:
    """Cash, and debts of any asset."""
    counted = [b for b in account.balances if (b.is_collateral and b.asset == ACCOUNTING) or b.amount < 0.0]
    return sum(b.amount * market.ratio(b.asset) for b in counted)


def places(account: Account, market: Market) -> list[Place]:
    """Every market in which the account holds a position or its token."""
    bases: dict[str, float] = {}
    for balance in account.balances:
        if balance.asset != ACCOUNTING and (balance.is_collateral or balance.amount < 0.0):
            bases[balance.asset] = bases.get(balance.asset, 0.0) + balance.amount
    held = account.holdings_by_unit()
    names = sorted(set(held) | {asset for asset, amount in bases.items() if amount != 0.0})
    return [read_place(name, held.get(name, []), bases.get(name, 0.0), market) for name in names]


def read_place(name: str, holdings: list[Holding], base: float, market: Market) -> Place:
    """One market's positions by what they are."""
    for holding in holdings:
        contract = holding.contract
        if contract.inverse or contract.digital or contract.kind == "future":
            message = f"expected linear vanilla options and perpetuals, found {contract!r}: standard margin has no rule"
            raise NotImplementedError(message)
    expiries: dict[float, list[Holding]] = {}
    for leg in holdings:
        if leg.contract.kind == "option":
            expiries.setdefault(leg.contract.expiry, []).append(leg)
    perps = [holding for holding in holdings if holding.contract.kind == "perpetual"]
    return Place(name, market.price(name), market.confidence(name), base, perps, list(expiries.values()))


def isolated_margin(leg: Holding, place: Place, numbers: Numbers, value: float) -> tuple[float, float]:
    """Initial and maintenance net margin of one option leg by itself, negative; `value` is signed as the leg is."""
    if leg.size >= 0.0:
        return 0.0, 0.0
    spot, size, strike = place.spot, leg.size, leg.contract.strike
    outside = (strike - spot) / spot if leg.contract.is_call else (spot - strike) / spot
    rate = max(numbers("option", "min_spot"), numbers("option", "max_spot") - max(0.0, outside))
    initial = value + rate * spot * size
    if leg.contract.is_call:
        return initial, value + numbers("option", "mm_call_spot") * spot * size
    floor = min(numbers("option", "mm_put_spot") * spot * size, numbers("option", "mm_put_mtm") * value)
    maintenance = value + floor
    return min(initial, numbers("option", "mm_offset") * maintenance), maintenance


def payoff(legs: list[Holding], price: float) -> float:
    """What legs of one expiry pay if it ends at a price."""
    total = 0.0
    for leg in legs:
        contract = leg.contract
        inside = price - contract.strike if contract.is_call else contract.strike - price
        total += leg.size * max(inside, 0.0)
    return total


def max_loss_margin(legs: list[Holding], scale: float) -> float:
    """Least payoff over 0 and the strikes held, at most 0, and forwards for calls that are short on balance."""
    worst = min([0.0, payoff(legs, 0.0), *(payoff(legs, leg.contract.strike) for leg in legs)])
    net_calls = sum(leg.size for leg in legs if leg.contract.is_call)
    forward = legs[0].contract.fixed + legs[0].contract.variable
    return worst + scale * forward * min(net_calls, 0.0)


def expiry_requirements(
    legs: list[Holding], place: Place, numbers: Numbers, cache: ScenarioCache
) -> tuple[float, float]:
    """Initial and maintenance requirement of one expiry: the less demanding net margin, its sign turned."""
    values = [leg.quantity * cache.value(leg.contract) for leg in legs]
    isolated = [isolated_margin(leg, place, numbers, value) for leg, value in zip(legs, values, strict=True)]
    found = []
    for column, kind in ((0, "im"), (1, "mm")):
        alone = sum(pair[column] for pair in isolated)
        together = max_loss_margin(legs, numbers("option", f"unpaired_{kind}"))
        found.append(-max(alone, together))
    return found[0], found[1]


def option_penalty(place: Place, market: Market, numbers: Numbers) -> float:
    """Charge for shorts of expiries whose feeds are in doubt; the perpetual's feed is not one of them."""
    total = 0.0
    for legs in place.expiries:
        feeds: Row = market.forwards.get(legs[0].contract.forward_key, {})
        known = [number(feeds, f"{name}_confidence", 1.0) for name in ("forward", "vol")]
        shorts = sum(max(-leg.size, 0.0) for leg in legs)
        total += penalty(min(place.confidence, *known), numbers, "option_threshold", shorts * place.spot)
    return total


def penalty(confidence: float, numbers: Numbers, threshold: str, notional: float) -> float:
    """(1 - confidence) of a notional whose confidence is below a threshold, scaled."""
    if confidence >= numbers("oracle", threshold):
        return 0.0
    return (1.0 - confidence) * numbers("oracle", "factor") * notional


def place_row(account: Account, place: Place, market: Market, params: Params, cache: ScenarioCache) -> Row:
    """One row of `units`: every part of the margin, all requirements positive."""
    numbers = Numbers(params, place.name)
    row: dict[str, Any] = {"account_id": account.account_id, "pool": account.pool, "unit": place.name}
    each = [expiry_requirements(legs, place, numbers, cache) for legs in place.expiries]
    row |= {"options_initial": sum(e[0] for e in each), "options_maintenance": sum(e[1] for e in each)}
    perp_size = sum(abs(perp.size) for perp in place.perps)
    notional = sum(abs(perp.size) * perp.contract.price for perp in place.perps)
    row |= {"perp_initial": notional * numbers("perp", "im"), "perp_maintenance": notional * numbers("perp", "mm")}
    owned = max(place.base, 0.0)
    counted = owned * place.spot * numbers("base", "margin_factor")
    row |= {"token_maintenance": counted, "token_initial": counted * numbers("base", "im_scale")}
    in_doubt = owned * place.spot if counted * numbers("base", "im_scale") > 0.0 else 0.0
    row["oracle_token"] = penalty(place.confidence, numbers, "base_threshold", in_doubt)
    row["oracle_perp"] = penalty(place.perp_confidence, numbers, "perp_threshold", perp_size * place.spot)
    row["oracle_options"] = option_penalty(place, market, numbers)
    shorts = sum(max(-leg.size, 0.0) for leg in place.options)
    row["peg"] = max(0.0, numbers("depeg", "threshold") - market.price(ACCOUNTING)) * numbers("depeg", "factor")
    row["depeg"] = row["peg"] * place.spot * (perp_size + shorts)
    row["maintenance_margin"] = row["options_maintenance"] + row["perp_maintenance"]
    parts = ("options_initial", "perp_initial", "oracle_perp", "oracle_options", "oracle_token", "depeg")
    row["initial_margin"] = sum(row[name] for name in parts)
    row |= unit_money([*place.options, *place.perps], cache) | {"worst_scenario": None, "worst_loss": 0.0}
    row["delta"] += place.base * market.ratio(place.name)
    return row
