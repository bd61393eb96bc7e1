"""What a model file may say: the schema of the TOML files under `models/`."""

from gpumargin.modelfile.account import Aggregation as Aggregation
from gpumargin.modelfile.account import CollateralTable as CollateralTable
from gpumargin.modelfile.components import ChargeTable as ChargeTable
from gpumargin.modelfile.components import Discount as Discount
from gpumargin.modelfile.components import ExpiryLoss as ExpiryLoss
from gpumargin.modelfile.components import Largest as Largest
from gpumargin.modelfile.components import ParsedCharge as ParsedCharge
from gpumargin.modelfile.components import PriceShortfall as PriceShortfall
from gpumargin.modelfile.components import ScenarioLoss as ScenarioLoss
from gpumargin.modelfile.components import SharedNames as SharedNames
from gpumargin.modelfile.file import Grade as Grade
from gpumargin.modelfile.file import ModelFile as ModelFile
from gpumargin.modelfile.file import Provenance as Provenance
from gpumargin.modelfile.numbers import DEFAULT as DEFAULT
from gpumargin.modelfile.scenarios import ScenarioRow as ScenarioRow
from gpumargin.modelfile.scenarios import VolShockTable as VolShockTable
