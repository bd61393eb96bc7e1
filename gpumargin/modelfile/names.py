"""What expressions of a model file may name, with what it means; kept without jax, tests hold it to the kernels."""

from __future__ import annotations

# Of one long contract; money in the accounting asset, sizes in units of the underlying.
CONTRACT_NAMES = {
    "size": "units of the underlying in one contract",
    "price": "mark of one unit of the underlying; of an option its value per unit",
    "value": "value of one option; 0 for contracts that settle their P&L",
    "forward": "forward of an option's expiry; of other contracts their mark",
    "quote": "price of the quote currency",
    "strike": "strike",
    "otm": "amount by which an option is out of the money against the index",
    "otm_forward": "the same against its forward",
    "years": "years to expiry",
    "days": "days to expiry",
    "rate": "continuously compounded rate of the expiry",
    "confidence": "least confidence of the feeds of the expiry",
    "delta": "delta in units of the underlying",
    "venue_delta": "the venue's own delta where marks give one, else delta; units of the underlying",
    "composite_delta": "delta averaged over the price points of [composite_delta], units of the underlying",
    "gamma": "change of delta per unit of price",
    "vega": "change of value per 1.00 of vol",
    "theta": "change of value per year",
    "rho": "change of value per 1.00 of rate, the forward held",
    "is_option": "1 for options, else 0",
    "is_call": "1 for calls, else 0",
    "is_perpetual": "1 for perpetuals, else 0",
    "is_base": "1 for a unit's own asset, else 0",
}
# Of a group: what all its contracts share. A position is one contract, all of whose names stand.
GROUP_NAMES = {"expiry": ("years", "days"), "strike": ("years", "days", "strike")}
# Of the options of one expiry together, at level expiry only.
EXPIRY_NAMES = {
    "lowest_payoff": "least that they pay together at expiry, at any price from 0 to their highest strike; at most 0",
}
# Columns of marks, as they are; a model that names one needs it.
MARK_NAMES = {
    "open_interest": "open interest, contracts",
    "skew": "the market's skew",
    "funding_rate": "funding rate per hour",
}
# Terms of instruments, as they are; 0 where an instrument has none.
TERM_NAMES = {"price_cap": "highest price of a capped future, quote currency"}
# Another price of the quote currency, `prices.twap`.
QUOTE_TWAP = "quote_twap"
QUOTE_NAMES = {QUOTE_TWAP: "time-weighted price of the quote currency"}
# Which column of marks stands behind a name.
MARK_COLUMNS = {**dict(zip(MARK_NAMES, MARK_NAMES, strict=True)), "venue_delta": "delta"}
# Columns of forwards, as they are; 1 for contracts other than options.
FEED_NAMES = {
    "forward_confidence": "confidence of the forward of an option's expiry",
    "rate_confidence": "confidence of its rate",
    "vol_confidence": "confidence of its vols",
}
UNIT_NAMES = {
    "spot": "index price of the underlying",
    "spot_confidence": "its confidence",
    "perpetual_confidence": "least confidence of the perpetuals' marks",
    "dollar": "accounting units per USD",
}
# Of one position, at level position only.
POSITION_NAMES = {
    "quantity": "signed size in units of the underlying",
    "entry": "entry price in quote currency, the mark where P&L is settled, 0 for an option that has neither",
    "buys": "open buy orders in units of the underlying",
    "sells": "open sell orders in units of the underlying",
    "orders": "number of open orders",
    "buys_value": "open buy orders at their limit prices",
    "sells_value": "open sell orders at their limit prices",
    "order_loss": "loss against the mark if every open order were filled at its limit price; gains count nothing",
}
