"""A model file bound to the units and assets of a book: names become indexes, tables of numbers become arrays."""

from gpumargin.bind.account import category_codes as category_codes
from gpumargin.bind.aggregation import aggregation_expressions as aggregation_expressions
from gpumargin.bind.model import bind as bind
from gpumargin.bind.model import scenario_rows as scenario_rows
from gpumargin.bind.model import scenario_weights as scenario_weights
from gpumargin.bind.model import spot_levels as spot_levels
from gpumargin.bind.model import without_scenarios as without_scenarios
from gpumargin.bind.numbers import by_name as by_name
