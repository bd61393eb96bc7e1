"""Pure JAX kernels of gpumargin: arrays in, arrays out, no I/O. Start reading at `margin`."""

from gpumargin_kernels._moves import Option
from gpumargin_kernels.account import account_stage
from gpumargin_kernels.black import BlackGreeks, black_greeks, black_value, option_greeks
from gpumargin_kernels.coin import coin_greeks
from gpumargin_kernels.collateral import CollateralValue, collateral_value
from gpumargin_kernels.components import KINDS, Charge, Kind
from gpumargin_kernels.correlation import correlated_margin
from gpumargin_kernels.digital import digital_greeks
from gpumargin_kernels.expression import Expression, evaluate
from gpumargin_kernels.forward import ForwardSplit, forward_split
from gpumargin_kernels.haircut import Haircut, Holding, Stress, collateral_haircut
from gpumargin_kernels.health import STATUSES, Health, account_health
from gpumargin_kernels.implied_vol import STATUS_WORDS, ImpliedVol, implied_vol
from gpumargin_kernels.interpolation import VolGrid, surface_vol
from gpumargin_kernels.lending import discounted_collateral
from gpumargin_kernels.margin import contract_stage, leg_stage, part_margin
from gpumargin_kernels.model import (
    AccountModel,
    BalanceCharge,
    BalanceRule,
    Component,
    Model,
    ScenarioRules,
    ScenarioSet,
    VolShock,
)
from gpumargin_kernels.normal import (
    normal_cdf,
    normal_density,
    normal_inverse_cdf,
    normal_log_cdf,
    normal_survival,
)
from gpumargin_kernels.parity import ParityForward, parity_forward
from gpumargin_kernels.rates import bracket, effective_rate, marginal
from gpumargin_kernels.records import Assets, Book, Contracts, Tally, UnitMarket
from gpumargin_kernels.scenario import ContractRisk, contract_risk
from gpumargin_kernels.shocked_vol import skew_multiplier, vol_multiplier, vol_points
from gpumargin_kernels.svi import SviSlice, svi_vol
from gpumargin_kernels.svi_arbitrage import butterfly_violation, calendar_violation
from gpumargin_kernels.svi_fit import SviFit, fit_svi
from gpumargin_kernels.tally import leg_sums
from gpumargin_kernels.vol_fill import filled_vol

__all__ = [
    "KINDS",
    "STATUSES",
    "STATUS_WORDS",
    "AccountModel",
    "Assets",
    "BalanceCharge",
    "BalanceRule",
    "BlackGreeks",
    "Book",
    "Charge",
    "CollateralValue",
    "Component",
    "ContractRisk",
    "Contracts",
    "Expression",
    "ForwardSplit",
    "Haircut",
    "Health",
    "Holding",
    "ImpliedVol",
    "Kind",
    "Model",
    "Option",
    "ParityForward",
    "ScenarioRules",
    "ScenarioSet",
    "Stress",
    "SviFit",
    "SviSlice",
    "Tally",
    "UnitMarket",
    "VolGrid",
    "VolShock",
    "account_health",
    "account_stage",
    "black_greeks",
    "black_value",
    "bracket",
    "butterfly_violation",
    "calendar_violation",
    "coin_greeks",
    "collateral_haircut",
    "collateral_value",
    "contract_risk",
    "contract_stage",
    "correlated_margin",
    "digital_greeks",
    "discounted_collateral",
    "effective_rate",
    "evaluate",
    "filled_vol",
    "fit_svi",
    "forward_split",
    "implied_vol",
    "leg_stage",
    "leg_sums",
    "marginal",
    "normal_cdf",
    "normal_density",
    "normal_inverse_cdf",
    "normal_log_cdf",
    "normal_survival",
    "option_greeks",
    "parity_forward",
    "part_margin",
    "skew_multiplier",
    "surface_vol",
    "svi_vol",
    "vol_multiplier",
    "vol_points",
]
