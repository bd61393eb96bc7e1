"""Fields of a PM2 reference case as the tables of a book and the values of a model. No formula here."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from gpumargin.catalogue import MarginModel, load_model
from gpumargin.run import margin
from gpumargin.runs import Run
from gpumargin.tables import read_book
from gpumargin_kernels.model import VolShock
from gpumargin_kernels.shocked_vol import vol_multiplier
from tests.reference import pm1_books
from tests.reference.pm1_books import AS_OF

_SVI = ("a", "b", "rho", "m", "sigma", "forward")
_YEAR = 365 * 86_400
_PROBE = "probe"  # an account that holds the perpetual alone
PROBED = pl.col("account_id") == _PROBE


def _collateral_name(name: str) -> str:
    """The asset of a case's collateral: never the underlying itself, whose price is another feed."""
    return f"C-{name}"


def _by_collateral(params: dict[str, Any], field: str) -> dict[str, float]:
    return {"default": 0.0} | {_collateral_name(c["name"]): c[field] for c in params["collateral"]}


def model_of(params: dict[str, Any], scenarios: list[dict[str, Any]]) -> MarginModel:
    """The shipped model with a case's values."""
    shock, discount, skew = params["vol_shock"], params["discount"], params["skew"]
    basis, contingency = params["forward_contingency"], params["contingency"]
    rows = [{"spot": s["spot"], "vol": s["vol"], "weight": s["dampening"]} for s in scenarios]
    moving = [_collateral_name(c["name"]) for c in params["collateral"] if c["risk_cancelling"]]
    counted = {_collateral_name(c["name"]): 1.0 for c in params["collateral"]}
    return load_model("derive-pm2").replace(
        {
            "scenarios.grid": rows,
            "scenarios.forward": [{"spot": basis["spot_up"]}, {"spot": basis["spot_down"]}],
            "base_legs": {"X": moving},
            "vol_shock.up": shock["range_up"],
            "vol_shock.down": shock["range_down"],
            "vol_shock.short_power": shock["short_term_power"],
            "vol_shock.long_power": shock["long_term_power"],
            "vol_shock.floor_days": shock["dte_floor_days"],
            "vol_shock.min_up": shock["min_up_vol"],
            "skew.linear_cap": skew["linear_cap"],
            "skew.linear_slope": skew["linear_slope"],
            "skew.abs_cap": skew["abs_cap"],
            "skew.abs_slope": skew["abs_slope"],
            "skew.min_k_star": skew["min_k_star"],
            "skew.width": skew["width"],
            "skew.vol_static": skew["vol_static"],
            "skew.vol_slope": skew["vol_slope"],
            "components.scan.discount.static": discount["pos_static"],
            "components.scan.discount.rate_multiplier": discount["pos_rate_mult"],
            "components.scan.discount.rate_addend": discount["pos_rate_add"],
            "components.scan.discount.negative.static": discount["neg_static"],
            "components.scan.discount.negative.rate_multiplier": discount["neg_rate_mult"],
            "components.scan.discount.negative.rate_addend": discount["neg_rate_add"],
            "components.basis.addend": basis["add"],
            "components.basis.multiplier": basis["mult"],
            "components.oracle.numbers.threshold": contingency["conf_threshold"],
            "components.oracle.numbers.rate": contingency["conf_scale"],
            "components.peg.threshold": contingency["peg_threshold"],
            "components.peg.factor": contingency["peg_factor"],
            "balances.haircut.numbers.rate": _by_collateral(params, "mm_haircut"),
            "balances.extra_haircut.numbers.rate": _by_collateral(params, "im_haircut_extra"),
            "balances.collateral_oracle.numbers.threshold": contingency["conf_threshold"],
            "balances.collateral_oracle.numbers.rate": {"default": contingency["conf_scale"], "USDC": 0.0},
            "collateral.assets": {"default": 0.0, "USDC": 1.0} | counted,
            "parameters.im_factor": params["factors"]["im"],
            "parameters.mm_factor": params["factors"]["mm"],
            "parameters.mm_perp": contingency["mm_perp"],
            "parameters.im_perp": contingency["im_perp_extra"],
            "parameters.mm_option": contingency["mm_option"],
            "parameters.im_option": contingency["im_option_extra"],
        }
    )


def tables_of(case: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """The case's account and market as the tables of a book; the underlying is X."""
    account, market = case["account"], case["market"]
    options = [{"vol": None, **option} for option in account["options"]]
    # A case without a perpetual gives its price as 0.
    perpetual = market["perp_price"] or market["spot"]
    plain = {
        "account": {**account, "base_amount": 0.0, "options": options},
        "market": {**market, "perp_price": perpetual},
    }
    tables = pm1_books.tables_of(plain)
    names = [_collateral_name(c["name"]) for c in market["collateral"]]
    feeds = {
        "asset": names,
        "price": [float(c["price"]) for c in market["collateral"]],
        "confidence": [float(c["confidence"]) for c in market["collateral"]],
    }
    held = {
        "asset": [_collateral_name(c["name"]) for c in account["collateral"]],
        "amount": [float(c["amount"]) for c in account["collateral"]],
    }
    prices = tables["prices"]
    more = pl.DataFrame(feeds, schema=prices.schema)
    balances = pl.DataFrame(held, schema={"asset": pl.String, "amount": pl.Float64})
    cash = tables["balances"].filter(pl.col("asset") == "USDC")
    probe = {"instrument_id": ["X-PERP"], "quantity": [1.0], "unsettled": [0.0], "account_id": [_PROBE]}
    return tables | {
        "forwards": tables["forwards"].with_columns(_svi_columns(market["expiries"])),
        "prices": pl.concat([prices, more]),
        "positions": pl.concat([tables["positions"], pl.DataFrame(probe)]),
        "balances": pl.concat([cash, balances.with_columns(account_id=pl.lit("case"))]),
    }


def _svi_columns(expiries: list[dict[str, Any]]) -> list[pl.Series]:
    """Fits of the expiries that give one."""
    fits = [expiry.get("svi") or {} for expiry in expiries]
    columns = {f"svi_{name}": [fit.get(name) for fit in fits] for name in _SVI}
    columns["svi_years"] = [fit.get("tau_years") for fit in fits]
    return [pl.Series(name, values, dtype=pl.Float64) for name, values in columns.items()]


class Answers:
    """What a case may expect, under the names that cases use."""

    def __init__(self, case: dict[str, Any], scenarios: list[dict[str, Any]]) -> None:
        self.case, self.scenarios = case, scenarios
        self.model = model_of(case["params"], scenarios)
        self.run: Run = margin(read_book(**tables_of(case)), self.model, as_of=AS_OF)
        own = pl.col("account_id") == "case"
        self.account = self.run.accounts.row(by_predicate=own, named=True)
        units = self.run.units.filter(own)
        self.unit = units.row(0, named=True) if units.height else dict.fromkeys(units.columns, 0.0)

    @cached_property
    def tables(self) -> dict[str, pl.DataFrame]:
        """Tables of the account's explanation."""
        return dict(self.run.explain("case").tables)

    def figures(self) -> dict[str, Any]:
        """Every figure but those of single expiries and options."""
        unit, parameters = self.unit, self.model.file.parameters
        rate = {name: values["default"] for name, values in parameters.items()}
        cash = self.case["account"]["cash"]
        return {
            "initial_margin": self.account["initial_excess"],
            "maintenance_margin": self.account["maintenance_excess"],
            "portfolio_mtm": self.account["equity"],
            "option_mtm": self.account["option_value"],
            "collateral_mtm": self.account["maintenance_collateral_value"] - cash,
            "forward_contingency": -unit["basis"],
            "oracle_contingency": -(unit["oracle"] + self.account["collateral_oracle"]),
            "mm_perp_contingency": -unit["perp"] * rate["mm_perp"],
            "im_perp_contingency_extra": -unit["perp"] * rate["im_perp"],
            "mm_option_contingency": -unit["naked_options"] * rate["mm_option"],
            "im_option_contingency_extra": -unit["naked_options"] * rate["im_option"],
            "mm_collateral_contingency": -self.account["haircut"],
            "im_collateral_contingency_extra": -self.account["extra_haircut"],
            # A charge of the unit, whatever is held: read where somebody certainly holds it.
            "effective_im_factor": rate["im_factor"] + self.run.units.row(by_predicate=PROBED, named=True)["peg"],
            "worst_scenario_index": self._worst(),
            "binding_group": self._group(),
        }

    def _worst(self) -> int | None:
        ids = self.run.scenarios.filter(pl.col("set") == "grid").sort("column")["id"].to_list()
        worst = self.unit["worst_scenario"]
        return [*ids, "basis"].index(worst) if worst else None

    def _group(self) -> str:
        """Which part of the scenario list binds; a portfolio that no scenario moves counts as regular."""
        worst = self._worst()
        if worst is None or (worst == len(self.scenarios) and self.unit["worst_loss"] == 0):
            return "regular"
        if worst == len(self.scenarios):
            return "fwd_contingency"
        scenario = self.scenarios[worst]
        if scenario["vol"].startswith("skew"):
            return "skew"
        regular = [abs(s["spot"] - 1) for s in self.scenarios if s["vol"] in ("none", "down")]
        return "tail" if abs(scenario["spot"] - 1) > 1.5 * max(regular) else "regular"

    def scenario_pnl(self) -> list[float]:
        """P&L that counts in every scenario of the grid."""
        table = self.tables.get("X scan")
        return table["counted_pnl"].to_list() if table is not None else [0.0] * len(self.scenarios)

    def by_expiry(self, *columns: str) -> list[list[float]]:
        """Columns of the scan's table of expiries, in the case's order."""
        table = next(frame for title, frame in self.tables.items() if title.startswith("X scan at"))
        rows = {str(row["expiry"]): [row[c] for c in columns] for row in table.iter_rows(named=True)}
        times = [AS_OF + timedelta(seconds=e["seconds_to_expiry"]) for e in self.case["market"]["expiries"]]
        return [rows[f"{time:%Y-%m-%d %H:%M}"] for time in times]

    def vol_multipliers(self, direction: int) -> list[float]:
        """Factor on the vol of every option."""
        bound = VolShock(
            *(
                np.array([getattr(self.model.file.vol_shock, name)["default"] / days])
                for name, days in (
                    ("up", 1),
                    ("down", 1),
                    ("short_power", 1),
                    ("long_power", 1),
                    ("pivot_days", 365),
                    ("floor_days", 365),
                )
            )
        )
        years = [option["seconds_to_expiry"] / _YEAR for option in self.case["account"]["options"]]
        return [float(vol_multiplier(bound, np.array([direction]), np.array([each]))[0, 0]) for each in years]


def results_of(case: dict[str, Any], scenarios: list[dict[str, Any]]) -> dict[str, Any]:
    """Every figure that the case expects, under the names that cases use."""
    answers, wanted = Answers(case, scenarios), case["expected"]
    found = answers.figures()
    if "scenario_pnl" in wanted:
        found["scenario_pnl"] = answers.scenario_pnl()
    if wanted.get("option_mtm_by_expiry"):
        found["option_mtm_by_expiry"] = [value for (value,) in answers.by_expiry("net_value")]
    if wanted.get("static_discount_pos_neg_by_expiry"):
        shares = answers.by_expiry("share_if_positive", "share_if_negative")
        is_live = [expiry["seconds_to_expiry"] > 0 for expiry in case["market"]["expiries"]]
        # Of what has expired the generator of the cases writes 1, which nothing uses.
        found["static_discount_pos_neg_by_expiry"] = [
            pair if live else [1.0, pair[1]] for pair, live in zip(shares, is_live, strict=True)
        ]
    if wanted.get("vol_mult_up_by_option"):
        found["vol_mult_up_by_option"] = answers.vol_multipliers(1)
        found["vol_mult_down_by_option"] = answers.vol_multipliers(-1)
    empty = {name: [] for name, value in wanted.items() if value == []}
    return empty | found
