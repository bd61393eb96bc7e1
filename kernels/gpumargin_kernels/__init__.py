"""Pure JAX kernels of gpumargin: arrays in, arrays out, no I/O. Start reading at `margin`."""

from gpumargin_kernels._moves import Option
from gpumargin_kernels.account import account_stage
from gpumargin_kernels.black import BlackGreeks, black_greeks, black_value, option_greeks
from gpumargin_kernels.coin import coin_greeks
from gpumargin_kernels.collateral import CollateralValue, collateral_value
from gpumargin_kernels.components import KINDS, Charge, Kind
from gpumargin_kernels.composite_delta import composite_delta
from gpumargin_kernels.correlation import correlated_margin
from gpumargin_kernels.digital import digital_greeks
from gpumargin_kernels.expression import Expression, evaluate
from gpumargin_kernels.forward import ForwardSplit, forward_split
from gpumargin_kernels.haircut import Haircut, Holding, Stress, collateral_haircut
from gpumargin_kernels.health import STATUSES, Health, account_health
from gpumargin_kernels.implied_vol import STATUS_WORDS, ImpliedVol, implied_vol
from gpumargin_kernels.interpolation import VolGrid, surface_vol
from gpumargin_kernels.lending import discounted_collateral
from gpumargin_kernels.liquidation import liquidation_price
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
from gpumargin_kernels.offset import offset_loss
from gpumargin_kernels.parity import ParityForward, parity_forward
from gpumargin_kernels.payoff import lowest_payoffs
from gpumargin_kernels.ranking import risk_order
from gpumargin_kernels.rates import bracket, effective_rate, marginal
from gpumargin_kernels.records import Assets, Book, Contracts, Tally, UnitMarket
from gpumargin_kernels.scenario import ContractRisk, contract_risk
from gpumargin_kernels.sensitivity import (
    CurvatureBuckets,
    RiskBuckets,
    across_classes,
    bucket_margins,
    concentration,
    curvature_margin,
    curvature_share,
    curvature_tail,
    layer_margin,
    vol_of_weight,
)
from gpumargin_kernels.shocked_vol import skew_multiplier, vol_multiplier, vol_points
from gpumargin_kernels.spread_credit import SpreadTable, spread_credit, weighted_price_risk
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
    "CurvatureBuckets",
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
    "RiskBuckets",
    "ScenarioRules",
    "ScenarioSet",
    "SpreadTable",
    "Stress",
    "SviFit",
    "SviSlice",
    "Tally",
    "UnitMarket",
    "VolGrid",
    "VolShock",
    "account_health",
    "account_stage",
    "across_classes",
    "black_greeks",
    "black_value",
    "bracket",
    "bucket_margins",
    "butterfly_violation",
    "calendar_violation",
    "coin_greeks",
    "collateral_haircut",
    "collateral_value",
    "composite_delta",
    "concentration",
    "contract_risk",
    "contract_stage",
    "correlated_margin",
    "curvature_margin",
    "curvature_share",
    "curvature_tail",
    "digital_greeks",
    "discounted_collateral",
    "effective_rate",
    "evaluate",
    "filled_vol",
    "fit_svi",
    "forward_split",
    "implied_vol",
    "layer_margin",
    "leg_stage",
    "leg_sums",
    "liquidation_price",
    "lowest_payoffs",
    "marginal",
    "normal_cdf",
    "normal_density",
    "normal_inverse_cdf",
    "normal_log_cdf",
    "normal_survival",
    "offset_loss",
    "option_greeks",
    "parity_forward",
    "part_margin",
    "risk_order",
    "skew_multiplier",
    "spread_credit",
    "surface_vol",
    "svi_vol",
    "vol_multiplier",
    "vol_of_weight",
    "vol_points",
    "weighted_price_risk",
]
