"""Numbers that margin accounts set for themselves: rows of `account_parameters` matched to legs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gpumargin.pack.columns import Floats, Ints, floats, strings, texts

EVERY_UNIT = -1


def values_by_unit(values: Mapping[str, float], units: Sequence[str]) -> Floats:
    """A number for each unit, its default where a unit is not listed, `[U]`."""
    return np.array([values.get(unit, values["default"]) for unit in units], np.float64)


@dataclass(frozen=True)
class Settings:
    """Rows of `account_parameters`.

    Attributes:
      name: `[rows]` words.
      account: `[rows]`.
      subject: `[rows]` index of the subject, `EVERY_UNIT` where a row names none; others are left out.
      value: `[rows]`.
    """

    name: np.ndarray
    account: Ints
    subject: Ints
    value: Floats

    @staticmethod
    def of(parameters: pa.Table, account: Ints, subjects: Sequence[str]) -> Settings:
        """The rows that name one of `subjects`, or none.

        Args:
          parameters: the book's table.
          account: `[rows]` account of each row.
          subjects: names that a row may be about: units for positions, assets for balances.
        """
        place = {name: i for i, name in enumerate(subjects)}
        given = texts(parameters, "subject") if "subject" in parameters.column_names else [None] * len(account)
        subject = np.array([EVERY_UNIT if s is None else place.get(str(s), -2) for s in given], np.int64)
        chosen = np.flatnonzero(subject >= EVERY_UNIT)
        names = strings(parameters, "name")
        return Settings(names[chosen], account[chosen], subject[chosen], floats(parameters, "value")[chosen])

    def applied(self, name: str, values: Floats, account: Ints, subject: np.ndarray) -> Floats:
        """Values of one number for each leg, those of its account in place of the usual ones, `[legs]`.

        A row about the leg's own subject outranks one that names none.
        """
        for own in (np.full(len(subject), EVERY_UNIT), subject):
            values = self._replaced(name, values, account, own)
        return values

    def _replaced(self, name: str, values: Floats, account: Ints, subject: np.ndarray) -> Floats:
        rows = np.flatnonzero(self.name == name)
        width = int(max(self.subject.max(initial=0), subject.max(initial=0))) + 2
        have = self.account[rows] * np.int64(width) + self.subject[rows] + 1
        if not len(have):
            return values
        order = np.argsort(have)
        wanted = account * np.int64(width) + subject + 1
        place = np.minimum(np.searchsorted(have[order], wanted), len(have) - 1)
        found = have[order][place] == wanted
        return np.where(found, self.value[rows][order][place], values)
