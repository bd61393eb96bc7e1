"""One listed contract: its value, scenario P&L and money Greeks, per contract held long, in the accounting unit.

Source: contract page sections 1 and 2 (linear, inverse, settlement), reference page sections 2 and 4 (shocks).
"""

from dataclasses import dataclass, field

from tests.oracle.black import (
    SECONDS_PER_YEAR,
    Option,
    Sensitivities,
    black_sensitivities,
    black_value,
    digital_sensitivities,
    digital_value,
    vol_multiplier,
)


@dataclass(frozen=True)
class Contract:
    """One contract as both models see it.

    `size`: contract_size; `ratio`: price of the settlement asset in the accounting unit; `mark`: None for an option
    priced by the model; `fixed` + `variable` = forward, only the variable part moves; `confidence`: the smallest of
    the expiry's (option) or the mark's (perpetual); `settled`: expired with a known settlement price, so no shock
    moves it; `digital`: an option that pays `size` of quote currency in the money.
    """

    instrument_id: object
    kind: str
    underlying: str
    inverse: bool
    size: float
    ratio: float
    mark: float | None
    confidence: float = 1.0
    settled: bool = False
    strike: float = 0.0
    is_call: bool = False
    digital: bool = False
    expiry: float = 0.0
    seconds: float = 0.0
    vol: float = 0.0
    fixed: float = 0.0
    variable: float = 0.0
    rate: float = 0.0
    forward_key: tuple[object, ...] = ()

    @property
    def years(self) -> float:
        """Years of 365 days to expiry, 0 once expired."""
        return self.seconds / SECONDS_PER_YEAR

    @property
    def option(self) -> Option:
        """The Black-76 terms; both models use no discounting."""
        return Option(strike=self.strike, is_call=self.is_call, years=self.years)

    @property
    def price(self) -> float:
        """Mark of a future or perpetual."""
        if self.mark is None:
            message = f"expected a mark_price for {self.kind} {self.instrument_id!r}, found null: add it to marks"
            raise ValueError(message)
        return self.mark


def model_value(contract: Contract, *, move: float = 1.0, vol_factor: float = 1.0) -> float:
    """Model value of one option, spot times `move` and vol times `vol_factor`; an inverse one is coin times price."""
    forward = contract.fixed + contract.variable * move
    price = digital_value if contract.digital else black_value
    value = price(contract.option, forward=forward, vol=contract.vol * vol_factor)
    if contract.inverse:
        return contract.size * value / forward * contract.ratio * move
    return contract.size * value * contract.ratio


def mark_value(contract: Contract) -> float:
    """Value of one option as booked: the mark if there is one, else the model."""
    if contract.mark is None:
        return model_value(contract)
    return contract.size * contract.mark * contract.ratio


def future_notional(contract: Contract) -> float:
    """P&L of one future or perpetual for a move of +100 %; an inverse one is counted in today's coin value."""
    if contract.settled:
        return 0.0
    per_unit = 1.0 / contract.price if contract.inverse else contract.price
    return contract.size * per_unit * contract.ratio


def scenario_pnl(contract: Contract, *, move: float, vol_factor: float) -> float:
    """Shocked minus unshocked value of one contract, always model against model."""
    if contract.kind == "option":
        return model_value(contract, move=move, vol_factor=vol_factor) - model_value(contract)
    return future_notional(contract) * (move - 1.0)


def entry_pnl(contract: Contract, *, entry: float | None) -> float:
    """P&L since entry of one future or perpetual; 0 for options (premium paid) and where it is already settled."""
    if entry is None or contract.kind == "option":
        return 0.0
    change = 1.0 / entry - 1.0 / contract.price if contract.inverse else contract.price - entry
    return contract.size * change * contract.ratio


def money_greeks(contract: Contract) -> Sensitivities:
    """Delta per +100 % spot, gamma per 1 % squared, vega per vol point, theta per day, of one contract.

    An inverse option is valued as Black(F) * S / F with S / F held constant.
    """
    if contract.kind != "option":
        return Sensitivities(future_notional(contract), 0.0, 0.0, 0.0)
    forward = contract.fixed + contract.variable
    sensitivities = digital_sensitivities if contract.digital else black_sensitivities
    raw = sensitivities(contract.option, forward=forward, vol=contract.vol)
    scale = contract.size * contract.ratio / (forward if contract.inverse else 1.0)
    return Sensitivities(
        delta=raw.delta * contract.variable * scale,
        gamma=raw.gamma * contract.variable**2 / 1e4 * scale,
        vega=raw.vega / 100.0 * scale,
        theta=raw.theta / 365.0 * scale,
    )


@dataclass
class ScenarioCache:
    """Scenario P&L and Greeks of contracts, each computed once: neither depends on the account that holds them."""

    vol_shock: dict[str, float]
    pnl_by_key: dict[tuple[object, float, str], float] = field(default_factory=dict)
    greeks_by_id: dict[object, Sensitivities] = field(default_factory=dict)
    value_by_id: dict[object, float] = field(default_factory=dict)

    def pnl(self, contract: Contract, *, move: float, rule: str) -> float:
        """Scenario P&L of one contract."""
        key = (contract.instrument_id, move, rule)
        if key not in self.pnl_by_key:
            factor = vol_multiplier(rule, seconds=contract.seconds, shock=self.vol_shock)
            self.pnl_by_key[key] = scenario_pnl(contract, move=move, vol_factor=factor)
        return self.pnl_by_key[key]

    def greeks(self, contract: Contract) -> Sensitivities:
        """Money Greeks of one contract."""
        if contract.instrument_id not in self.greeks_by_id:
            self.greeks_by_id[contract.instrument_id] = money_greeks(contract)
        return self.greeks_by_id[contract.instrument_id]

    def value(self, contract: Contract) -> float:
        """Booked value of one contract: 0 for a future or perpetual."""
        if contract.instrument_id not in self.value_by_id:
            self.value_by_id[contract.instrument_id] = mark_value(contract) if contract.kind == "option" else 0.0
        return self.value_by_id[contract.instrument_id]
