"""Claims about messages on model files: each names key, value and what is allowed, in words of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpumargin.catalogue import load_model
from gpumargin.errors import UsageError

TEXT = (Path(__file__).parent / "mistaken.toml").read_text("utf-8")
KINDS = "'scenario_loss', 'expiry_loss', 'charge', 'price_shortfall', 'largest', 'scenario_mean', 'spread_credit'"
TIERS, RATE = "[[1e6, 0.1], [inf, 0.2]]", "{ default = 0.02, BTC = 0.01 }"
ASSET = 'accounting_asset = "USDC"'
# What stands in the file, what is written instead, and what the message says of it.
MISTAKES = {
    "misspelt key": ("title =", "titel =", ["title: is missing", "titel: unknown key", "did you mean 'title'?"]),
    "key of a status": (
        "liquidatable =",
        "liquidated =",
        ["status.liquidated: unknown key; known here: bankrupt, liquidatable, margin_call"],
    ),
    "key of collateral": (
        "assets = {",
        "asets = {",
        ["collateral.asets: unknown key; known here: asset, assets, base, liability"],
    ),
    "kind of a component": (
        '"charge"',
        '"charg"',
        [f"components.naked.kind: must be one of {KINDS}, found 'charg'; did you mean 'charge'?"],
    ),
    "no kind": ('kind = "charge"\n', "", ["components.naked.kind: is missing: one of charge, expiry_loss"]),
    "kind of aggregation": ('"correlated"', '"correlation"', ["aggregation.kind: must be one of 'sum', 'correlated'"]),
    "unknown component": ("max(scan, 0)", "max(scam, 0)", ["margin.maintenance: unknown name 'scam'", "'scan'?"]),
    "unknown sum": ("max(-size, 0)", "max(-sizes, 0)", ["components.naked.each.naked_size: unknown name 'sizes'"]),
    "name of a position in a sum": ('"size"', '"quantity"', ["components.naked.net.size: unknown name 'quantity'"]),
    "unknown table": ("size, tiers)", "size, tears)", ["components.naked.amount: unknown name 'tears'", "here: tiers"]),
    "unknown name of a balance": ("max(-value", "max(-valeu", ["balances.lent.each.owed: unknown name 'valeu'"]),
    "no default": (RATE, "{ BTC = 0.01 }", ["components.naked.numbers.rate: needs a 'default'", "['BTC']"]),
    "brackets without default": (TIERS, "{ BTC = [[inf, 1]] }", ["components.naked.tables.tiers: needs a 'default'"]),
    "brackets in disorder": (
        TIERS,
        "[[inf, 0.1], [1e6, 0.2]]",
        ["components.naked.tables.tiers: brackets are [upper bound, rate]", "ascending", "found [[inf, 0.1]"],
    ),
    "bracket of three": (TIERS, "[[0, 1, 2]]", ["tables.tiers.0: must be a list of 2 numbers, found [0, 1, 2]"]),
    "brackets left flat": (TIERS, "[1e6, 0.1]", ["tables.tiers.0: must be a list of 2 numbers, found 1000000.0"]),
    "margin type of an account": (
        'maintenance = "units',
        'maintenence = "units',
        ["account.maintenence: no margin type; they are ['initial', 'maintenance']"],
    ),
    "margin type of what counts": ('initial = "unr', 'inital = "unr', ["counted.inital: no margin type; they are"]),
    "comparison outside where": (
        '"max(scan, 0)',
        '"(scan > 0)',
        ["margin.maintenance: 'scan > 0' in '(scan > 0) + naked'", "where(a < b, x, y)"],
    ),
    "power": ("im_factor * m", "im_factor ^ m", ["margin.initial: 'im_factor ^ maintenance'", "pow"]),
    "half an expression": (
        "im_factor * m",
        "(im_factor * m",
        ["margin.initial", "is not an expression", "never closed"],
    ),
    "condition without comparison": (
        '"maintenance_excess < 0"',
        '"maintenance_excess"',
        ["status.liquidatable: 'maintenance_excess'", "is no condition; use comparisons"],
    ),
    "unknown function": (
        "marginal(naked_size, tiers)",
        "round(naked_size)",
        ["components.naked.amount: 'round(", "floor"],
    ),
    "share in per cent": (
        "USDC = 1.0",
        "USDC = 95",
        ["collateral.assets.USDC: must be at most 1 (a decimal: 30 % is 0.3), found 95"],
    ),
    "move for a level": (
        "spot = 0.85",
        "spot = -0.15",
        ["scenarios.grid.1.spot: must be at least 0 (a level: up 15 %"],
    ),
    "level in per cent": ("spot = 0.85", "spot = 85", ["scenarios.grid.1.spot: must be at most 10 (a level: up 15 %"]),
    "weight in per cent": ("weight = 0.3", "weight = 30", ["scenarios.grid.2.weight: must be at most 10 (a decimal"]),
    "vol in per cent": ("up = 0.5", "up = 50", ["vol_shock.up: must be at most 10 (a decimal: 30 % is 0.3), found 50"]),
    "text for a number": (
        "im_factor = 1.3",
        'im_factor = "1.3"',
        ["parameters.im_factor: must be a number or a table of numbers by name, found '1.3'"],
    ),
    "list for a number": ("im_factor = 1.3", "im_factor = [1.3]", ["parameters.im_factor: must be a number", "[1.3]"]),
    "truth for a number": (RATE, "{ default = true }", ["numbers.rate.default: must be a number, found true"]),
    "number for an expression": ('"im_factor * maintenance"', "1.3", ["margin.initial: must be a text, found 1.3"]),
    "text for a list": (
        '["option", "perpetual"]',
        '"option"',
        ["kinds: must be a list, each one of 'option', 'future'"],
    ),
    "kind of leg": ('legs = ["option"]', 'legs = ["options"]', ["components.naked.legs.0: must be one of 'option'"]),
    "level of a charge": ('"strike"', '"strikes"', ["components.naked.level: must be one of 'position', 'strike'"]),
    "direction of vol": ('"up"', '"upp"', ["scenarios.grid.0.vol: must be one of 'up', 'none', 'down'", "found 'upp'"]),
    "text for a choice": (ASSET, f'{ASSET}\nbase_legs = "yes"', ["base_legs: must be true or false or one of 'every'"]),
    "debt": (ASSET, f'{ASSET}\ndebt = "due"', ["debt: must be one of 'balance', 'requirement', found 'due'"]),
    "required table": (ASSET, f'{ASSET}\nrequires = ["markz"]', ["requires: a book has no table 'markz'", "marks"]),
    "required column": (ASSET, f'{ASSET}\nrequires = ["marks.skw"]', ["requires: marks has no column 'skw'", "skew"]),
    "name with spaces": ('name = "mine"', 'name = "My PM"', ["name: must match", "found 'My PM'"]),
    "name of a component": ("[components.naked]", "[components.na-ked]", ["components.na-ked: must match"]),
    "name that is taken": ("[components.scan]", "[components.delta]", ["components.delta: the name means something"]),
    "date": ("2026-01-01", '"January"', ["effective: must be a date such as 2026-01-31, found 'January'"]),
    "unused parameter": ("im_factor * m", "1.3 * m", ["parameters.im_factor: named by no expression"]),
    "collateral of one type": ("[collateral]", "[collateral.initial]", ["collateral: has tables for ['initial']"]),
    "path of a grade": (
        '[provenance]\ndefault = "estimated"',
        '[provenance]\ndefault = "published"\nestimated = ["components.scn"]',
        ["provenance.estimated: 'components.scn' is no place of the file; components has naked, scan", "'scan'?"],
    ),
    "no grades": ('[provenance]\ndefault = "estimated"', "", ["provenance: is missing: a table with keys of default"]),
}
JARGON = (
    "value_error",
    "Value error",
    "input_type",
    "union_tag",
    "discriminator",
    "function-",
    "Input should",
    "tuple",
)


def test_the_file_is_sound_before_a_mistake_is_made(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TEXT, "utf-8")
    assert load_model(path).label == "mine@2026-01-01"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_by_key_value_and_what_is_allowed(mistake: str, tmp_path: Path) -> None:
    old, new, says = MISTAKES[mistake]
    assert old in TEXT
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace(old, new, 1), "utf-8")
    with pytest.raises(UsageError) as caught:
        load_model(path)
    for words in says:
        assert words in str(caught.value)
    assert not [word for word in JARGON if word in str(caught.value)]
