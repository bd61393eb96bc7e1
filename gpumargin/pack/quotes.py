"""Known vols of options as padded arrays by surface, expiry and strike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpumargin.pack.columns import Bools, Floats, Ints
from gpumargin_kernels.vol_fill import SurfaceQuotes, Wanted


@dataclass(frozen=True)
class Options:
    """Options of several surfaces, `[M]` each; options of one surface and expiry share forward and years."""

    surface: Ints  # code of underlying and quote, 0 to S - 1
    expiry: Ints  # any number that grows with time
    strike: Floats
    forward: Floats  # NaN if unknown
    years: Floats
    vol: Floats  # NaN if unknown


def surface_quotes(options: Options) -> tuple[SurfaceQuotes, Wanted]:
    """What is known, and, for the options whose vol is NaN, in their order, what is not.

    A vol counts as a quote where vol, strike, forward and years are above 0 and finite. A call and a put of one strike
    give one quote, the mean of their vols.
    """
    chosen = _is_quote(options)
    keys = np.stack([options.surface, options.expiry], axis=1)
    slices, slice_of = np.unique(keys[chosen], axis=0, return_inverse=True)
    first = np.searchsorted(slices[:, 0], slices[:, 0])  # of its surface's slices
    place = np.arange(len(slices)) - first
    surfaces = int(options.surface.max(initial=-1)) + 1
    quotes = _padded(options, chosen, (slices[:, 0], place), slice_of.ravel(), surfaces)
    rows = np.flatnonzero(np.isnan(options.vol))
    own = _own_expiry(keys[rows], slices, place)
    terms = (getattr(options, name)[rows] for name in ("strike", "forward", "years"))
    return quotes, Wanted(options.surface[rows].astype(np.int32), own, *terms)


def _is_quote(options: Options) -> Bools:
    numbers = np.stack([options.vol, options.strike, options.forward, options.years])
    chosen: Bools = ((numbers > 0) & np.isfinite(numbers)).all(axis=0)
    return chosen


def _padded(
    options: Options, chosen: Bools, where: tuple[np.ndarray, np.ndarray], slice_of: np.ndarray, surfaces: int
) -> SurfaceQuotes:
    """Quotes as `[S, E, Q]`, at least one expiry and one strike wide."""
    strike, vol = options.strike[chosen], options.vol[chosen]
    order = np.lexsort((strike, slice_of))
    row, strike, vol = slice_of[order], strike[order], vol[order]
    is_new = np.append(True, (row[1:] != row[:-1]) | (strike[1:] != strike[:-1]))[: len(row)]
    starts = np.flatnonzero(is_new)
    mean = np.add.reduceat(vol, starts) / np.diff(np.append(starts, len(row))) if len(row) else vol
    row, strike = row[starts], strike[starts]
    slot = np.arange(len(row)) - np.searchsorted(row, row)
    expiries, width = int(where[1].max(initial=0)) + 1, int(slot.max(initial=0)) + 1
    quotes = SurfaceQuotes(
        *(np.full((surfaces, expiries), np.inf), np.ones((surfaces, expiries))),
        *(np.full((surfaces, expiries, width), np.inf), np.ones((surfaces, expiries, width))),
    )
    quotes.years[where[0][slice_of], where[1][slice_of]] = options.years[chosen]
    quotes.forward[where[0][slice_of], where[1][slice_of]] = options.forward[chosen]
    at = (where[0][row], where[1][row], slot)
    quotes.strike[at], quotes.vol[at] = strike, mean
    return quotes


def _own_expiry(wanted: np.ndarray, slices: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Which quoted expiry of its surface each option has, -1 where its expiry has no quotes."""
    known = {(int(surface), int(expiry)): int(at) for (surface, expiry), at in zip(slices, place, strict=True)}
    return np.array([known.get((int(s), int(e)), -1) for s, e in wanted], np.int32)
