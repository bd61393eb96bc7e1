"""What a model needs of itself and of a book, beyond the input contract."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpumargin.bind import scenario_rows, scenario_weights, spot_levels
from gpumargin.catalogue import MarginModel
from gpumargin.failures import Failure, failure_frame, input_error
from gpumargin.modelfile import Aggregation, Correlated, Covariance, PriceShortfall, Sensitivities
from gpumargin.pack.accounts import Accounts
from gpumargin.pack.columns import Bools, encoded, flat, floats, positions_in, strings, texts
from gpumargin.schema import USD
from gpumargin.tables import Book

_EXAMPLES = 20
_SYMMETRY = 1e-12
_SMALLEST_EIGENVALUE = -1e-10
# Columns of a book that change its numbers and that no component of this version reads: refused, never ignored.
_UNPRICED = {"premium": "upfront"}


def require_usable(model: MarginModel, book: Book) -> None:
    """Checks that a model can margin a book, whatever its accounts hold.

    Raises:
      InputError: GM114 a correlation matrix that is none; GM115 a scenario in which spot is nothing or a P&L counts
        less than not at all; GM105 an asset the model needs has no price; GM101 an
        optional input that the model requires is absent; GM112 a contract feature the model cannot price.
    """
    failures = [
        *_correlation(model),
        *_scenarios(model, book),
        *_assets(model, book),
        *_required(model, book),
        *_features(book, model.file.term_inputs),
    ]
    if failures:
        raise input_error(failure_frame(failures))


def require_priceable(book: Book, money: str) -> None:
    """Checks that the contracts of a market can be priced and stated in `money`.

    Raises:
      InputError: GM105 or GM109, no positive price of `money`; GM112 a contract feature that is not priced.
    """
    failures = [*_statable(book, money), *_features(book)]
    if failures:
        raise input_error(failure_frame(failures))


def _statable(book: Book, money: str) -> Iterator[Failure]:
    prices = book.tables["prices"]
    price = dict(zip(map(str, texts(prices, "asset")), floats(prices, "price"), strict=True)).get(money)
    if price is None and money != USD:
        message = f"contracts are to be stated in {money!r}, and the prices table has no price of it"
        yield Failure("GM105", "prices", "", None, "asset", money, message, f"add a row for {money!r} to prices")
    elif price == 0:
        message = f"no amount can be stated in {money!r}, whose price is 0"
        yield Failure("GM109", "prices", "", None, "price", money, message, f"give {money!r} a positive price")


def require_margined(model: MarginModel, book: Book, accounts: Accounts, included: Bools) -> None:
    """Checks that a model margins every contract that its accounts hold, and knows every category and number of theirs.

    Raises:
      InputError: GM112, one row per contract, category and number that it does not.
    """
    kind_of = strings(book.tables["instruments"], "kind")
    ids = flat(book.tables["instruments"]["instrument_id"])
    ids = ids.dictionary_decode() if isinstance(ids, pa.DictionaryArray) else ids
    positions = book.tables["positions"]
    codes, values = encoded(positions["instrument_id"])
    is_foreign = ~np.isin(kind_of, model.file.kinds)[positions_in(values, ids)][codes]
    rows = np.flatnonzero(is_foreign & included[accounts.of_positions])
    failures = [_foreign(model, book, int(row), str(values[codes[row]])) for row in rows[:_EXAMPLES]]
    failures += [*_categories(model, book), *_settings(model, book, accounts, included)]
    if failures:
        raise input_error(failure_frame(failures))


def _settings(model: MarginModel, book: Book, accounts: Accounts, included: Bools) -> list[Failure]:
    """Numbers that accounts set and that the model does not let them set."""
    if not book.num_rows("account_parameters"):
        return []
    names = strings(book.tables["account_parameters"], "name")
    is_own = included[accounts.of_parameters]
    is_unknown = ~np.isin(names, sorted(model.file.settable))
    with_subject = sorted({*model.file.leg_inputs, *model.file.balance_inputs})
    has_subject = texts(book.tables["account_parameters"], "subject") != np.array(None)
    is_misplaced = ~is_unknown & has_subject & ~np.isin(names, with_subject)
    known = ", ".join(sorted(model.file.settable)) or "none"
    wrongs = (
        (is_unknown, f"accounts of {model.label} cannot set it; numbers that they can set: {known}"),
        (is_misplaced, f"{model.label} has it for whole accounts only; leave subject empty"),
    )
    return [
        _setting(book, row, names[row], message)
        for is_wrong, message in wrongs
        for row in np.flatnonzero(is_wrong & is_own)[:_EXAMPLES].tolist()
    ]


def _setting(book: Book, row: int, name: str, problem: str) -> Failure:
    file, place = book.locate("account_parameters", row)
    remedy = "correct the row or leave it out, or margin the account with a model file of its own (accounts.model)"
    return Failure("GM112", "account_parameters", file, place, "name", name, f"{name!r}: {problem}", remedy)


def _foreign(model: MarginModel, book: Book, row: int, instrument: str) -> Failure:
    file, place = book.locate("positions", row)
    message = f"{model.label} margins {', '.join(model.file.kinds)}; the position in {instrument!r} is none of these"
    remedy = "margin the account with another model (accounts.model), or leave the position out"
    return Failure("GM112", "positions", file, place, "instrument_id", instrument, message, remedy)


def _model_failure(model: MarginModel, code: str, column: str, value: object, message: str, remedy: str) -> Failure:
    return Failure(code, "model", f"{model.label}.toml", None, column, str(value), message, remedy)


def _correlation(model: MarginModel) -> Iterator[Failure]:
    remedy = "give a symmetric positive semidefinite matrix, correlations with ones on the diagonal, one row per name"
    for key, names, rows, diagonal in _matrices(model.file.aggregation):
        problem = matrix_problem(names, rows, diagonal=diagonal, word=key)
        if problem is not None:
            value, message = problem
            yield _model_failure(model, "GM114", f"aggregation.{key}", value, message, remedy)


def _matrices(rule: Aggregation) -> Iterator[tuple[str, list[str], list[list[float]], float | None]]:
    """Every matrix of an aggregation: its key, the names of its rows, the rows, and what its diagonal must be."""
    match rule:
        case Correlated():
            yield "correlation", rule.units, rule.correlation, 1.0
        case Covariance():
            yield "covariance", rule.units, rule.covariance, None
        case Sensitivities():
            yield "across", list(rule.buckets), rule.across, 1.0


def matrix_problem(
    names: list[str], rows: list[list[float]], *, diagonal: float | None = 1.0, word: str = "correlation"
) -> tuple[object, str] | None:
    """What keeps a table from being a correlation matrix: the offending value and why; None if it is one.

    `diagonal` None asks for a covariance matrix instead: no bound on its entries.
    """
    size = len(names)
    if [len(row) for row in rows] != [size] * size:
        return len(rows), f"{word} is not {size} x {size}, one row and column per name"
    matrix = np.array(rows, dtype=np.float64)
    if len(set(names)) != size:
        return names, "a name is listed twice"
    if not np.all(np.isfinite(matrix)):
        return "NaN", f"{word} has an entry that is not finite"
    largest = float(np.abs(matrix).max(initial=0))
    if np.abs(matrix - matrix.T).max(initial=0) > _SYMMETRY * max(largest, 1):
        return float(np.abs(matrix - matrix.T).max()), f"{word} is not symmetric"
    if diagonal is not None and np.any(np.diag(matrix) != diagonal):
        return float(np.diag(matrix).min()), f"{word} has a diagonal entry other than {diagonal:g}"
    if diagonal is not None and largest > 1:
        return largest, "a correlation is outside -1 to 1"
    smallest = float(np.linalg.eigvalsh(matrix).min()) if size else 0.0
    if smallest < _SMALLEST_EIGENVALUE * max(largest, 1):
        return smallest, f"{word} is not positive semidefinite: smallest eigenvalue {smallest:.3g}"
    return None


def _scenarios(model: MarginModel, book: Book) -> Iterator[Failure]:
    """A spot of 0 or below is no price, and a weight below 0 would turn losses into gains."""
    units = sorted({str(word) for word in encoded(book.tables["instruments"]["underlying"])[1].to_pylist()})
    for index, (name, row) in enumerate(scenario_rows(model.file) if units else ()):
        place = f"scenarios.{name}.{index}"
        spots, weights = spot_levels(model.file, row, units), scenario_weights(model.file, row, units)
        for what, values, is_wrong, wanted in (
            ("spot", spots, ~(spots > 0), "above 0"),
            ("weight", weights, ~(weights >= 0), "of at least 0"),
        ):
            for unit in np.flatnonzero(is_wrong)[:1].tolist():
                message = (
                    f"scenario {row.label!r} has a {what} of {values[unit]:g} for {units[unit]!r}, expected {wanted}"
                )
                remedy = "give levels of spot as shares of today's, 0.85 for -15 %, and weights of 0 and more"
                yield _model_failure(model, "GM115", f"{place}.{what}", values[unit], message, remedy)


def _assets(model: MarginModel, book: Book) -> Iterator[Failure]:
    prices = book.tables["prices"]
    known = dict(zip(map(str, texts(prices, "asset")), floats(prices, "price"), strict=True))
    needed = {"accounting_asset": model.file.accounting_asset}
    needed |= {
        f"components.{name}.asset": component.asset
        for name, component in model.file.components.items()
        if isinstance(component, PriceShortfall)
    }
    for column, asset in needed.items():
        if asset not in known and asset != USD:
            message = f"the model needs the price of {asset!r}, and the prices table has none"
            yield _model_failure(model, "GM105", column, asset, message, f"add a row for {asset!r} to prices")
        elif known.get(asset, 1.0) == 0 and column == "accounting_asset":
            message = f"no amount can be stated in {asset!r}, whose price is 0"
            yield _model_failure(model, "GM109", column, asset, message, f"give {asset!r} a positive price")


def _required(model: MarginModel, book: Book) -> Iterator[Failure]:
    for path in dict.fromkeys([*model.file.requires, *model.file.asset_columns.values()]):
        table, _, column = path.partition(".")
        found = book.tables.get(table)
        if found is None or (column and column not in found.column_names):
            message = f"the model requires {path!r}, and the book does not have it"
            yield _model_failure(model, "GM101", path, "absent", message, f"add {path!r} to the book")


def _categories(model: MarginModel, book: Book) -> Iterator[Failure]:
    """Accounts in a category that the model does not have would be margined without it: refused."""
    table, known = book.tables.get("accounts"), model.file.categories
    if table is None or not known or "emode" not in table.column_names:
        return
    words = encoded(table["emode"])[1].to_pylist()
    for word in sorted(str(word) for word in words if word is not None and str(word) not in known):
        row = int(np.flatnonzero(strings(table, "emode") == word)[0])
        file, place = book.locate("accounts", row)
        message = f"{model.label} has no category {word!r}; it has {', '.join(known)}"
        remedy = "leave emode empty for accounts without one, or add the category to the model file"
        yield Failure("GM112", "accounts", file, place, "emode", word, message, remedy)


def _features(book: Book, read: Collection[str] = ()) -> Iterator[Failure]:
    """Contract terms and tables that would change the margin but that this version does not price."""
    instruments = book.tables["instruments"]
    for column, plain in _UNPRICED.items():
        words = set(encoded(instruments[column])[1].to_pylist()) if column in instruments.column_names else set()
        for word in sorted(words - {plain}):
            row = int(np.flatnonzero(texts(instruments, column) == word)[0])
            yield _feature(book, row, column, word)
    yield from _odd_payoffs(book)
    if "price_cap" in instruments.column_names and "price_cap" not in read:
        capped = np.flatnonzero(np.asarray(pc.is_valid(flat(instruments["price_cap"]))))
        yield from (_feature(book, int(row), "price_cap", instruments["price_cap"][int(row)]) for row in capped[:1])


def _odd_payoffs(book: Book) -> Iterator[Failure]:
    """A payoff is a term of options: on anything else it would be ignored."""
    instruments = book.tables["instruments"]
    odd = (strings(instruments, "payoff") != "vanilla") & (strings(instruments, "kind") != "option")
    for row in np.flatnonzero(odd)[:1].tolist():
        yield _feature(book, row, "payoff", instruments["payoff"][row])


def _feature(book: Book, row: int, column: str, value: object) -> Failure:
    file, place = book.locate("instruments", row)
    message = f"{column} {str(value)!r} is not priced by this version"
    return Failure(
        "GM112", "instruments", file, place, column, str(value), message, "leave the contract out of the book"
    )
