"""Pure JAX kernels of gpumargin: arrays in, arrays out, no I/O. Start reading at `margin`."""

from gpumargin_kernels.black import BlackGreeks, black_greeks, black_value
from gpumargin_kernels.collateral import CollateralValue, collateral_value
from gpumargin_kernels.components import KINDS, Charge, Kind
from gpumargin_kernels.correlation import correlated_margin
from gpumargin_kernels.expression import Expression, evaluate
from gpumargin_kernels.forward import ForwardSplit, forward_split
from gpumargin_kernels.health import STATUSES, Health, account_health
from gpumargin_kernels.margin import account_stage, contract_stage, leg_stage, part_margin
from gpumargin_kernels.model import Component, Model, ScenarioSet, VolShock, Weights
from gpumargin_kernels.normal import normal_cdf, normal_density
from gpumargin_kernels.records import Assets, Book, Contracts, Tally, UnitMarket
from gpumargin_kernels.scenario import ContractRisk, contract_risk, vol_multiplier
from gpumargin_kernels.svi import SviSlice, svi_vol
from gpumargin_kernels.tally import leg_sums

__all__ = [
    "KINDS",
    "STATUSES",
    "Assets",
    "BlackGreeks",
    "Book",
    "Charge",
    "CollateralValue",
    "Component",
    "ContractRisk",
    "Contracts",
    "Expression",
    "ForwardSplit",
    "Health",
    "Kind",
    "Model",
    "ScenarioSet",
    "SviSlice",
    "Tally",
    "UnitMarket",
    "VolShock",
    "Weights",
    "account_health",
    "account_stage",
    "black_greeks",
    "black_value",
    "collateral_value",
    "contract_risk",
    "contract_stage",
    "correlated_margin",
    "evaluate",
    "forward_split",
    "leg_stage",
    "leg_sums",
    "normal_cdf",
    "normal_density",
    "part_margin",
    "svi_vol",
    "vol_multiplier",
]
