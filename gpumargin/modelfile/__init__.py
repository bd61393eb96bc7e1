"""What a model file may say: the schema of the TOML files under `models/`."""

from gpumargin.modelfile.account import CollateralTable as CollateralTable
from gpumargin.modelfile.aggregation import Aggregation as Aggregation
from gpumargin.modelfile.aggregation import Correlated as Correlated
from gpumargin.modelfile.aggregation import Covariance as Covariance
from gpumargin.modelfile.aggregation import Offset as Offset
from gpumargin.modelfile.aggregation import PlainSum as PlainSum
from gpumargin.modelfile.aggregation import Sensitivities as Sensitivities
from gpumargin.modelfile.components import ChargeTable as ChargeTable
from gpumargin.modelfile.components import Discount as Discount
from gpumargin.modelfile.components import DiscountRate as DiscountRate
from gpumargin.modelfile.components import ExpiryLoss as ExpiryLoss
from gpumargin.modelfile.components import Largest as Largest
from gpumargin.modelfile.components import ParsedCharge as ParsedCharge
from gpumargin.modelfile.components import PriceShortfall as PriceShortfall
from gpumargin.modelfile.components import ScenarioLoss as ScenarioLoss
from gpumargin.modelfile.components import ScenarioMean as ScenarioMean
from gpumargin.modelfile.components import SharedNames as SharedNames
from gpumargin.modelfile.components import SpreadCredit as SpreadCredit
from gpumargin.modelfile.components import SpreadLeg as SpreadLeg
from gpumargin.modelfile.file import Grade as Grade
from gpumargin.modelfile.file import ModelFile as ModelFile
from gpumargin.modelfile.file import Provenance as Provenance
from gpumargin.modelfile.numbers import DEFAULT as DEFAULT
from gpumargin.modelfile.scenarios import ScenarioRow as ScenarioRow
from gpumargin.modelfile.scenarios import SkewTable as SkewTable
from gpumargin.modelfile.scenarios import VolShockTable as VolShockTable
