"""A whole book on disk: market, holdings block by block, the makers who take the other side, and everybody's cash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from gpumargin.errors import UsageError
from gpumargin.synth.contracts import Contracts, Ints, pack_contracts, restrict
from gpumargin.synth.funding import STATUSES, fund, pack_purse
from gpumargin.synth.holdings import (
    MAKER,
    NAMES,
    Legs,
    Plan,
    Rows,
    complete_rows,
    draw_legs,
    draw_rows,
    num_blocks,
    plan_book,
    plan_traded,
    stream,
)
from gpumargin.synth.makers import admit, maker_legs, sized
from gpumargin.synth.market import COINS, Market, made_up_market
from gpumargin.synth.source import copy_market, read_market
from gpumargin.synth.write import Balances, Holdings, Members, T, Writer, balances_of, holdings_of, joined, taken

_MOST_POSITIONS = 100.0
_SAME_OWNER = 0.15
_INSURANCE = 0.01  # of all maintenance margin
_MAKER_BLOCK = 2_048
_SHUFFLED_PART = 1_000_000


@dataclass(frozen=True)
class Summary:
    """What `generate_book` wrote.

    Attributes:
      folder: the book.
      accounts, margin_accounts, positions, instruments: counts; positions are legs.
      traded: contracts that somebody holds.
      archetypes: accounts (isolated pools apart) by kind of trader.
      intended: margin accounts by the status their funding aims at under a portfolio margin; a model run decides.
    """

    folder: Path
    accounts: int
    margin_accounts: int
    positions: int
    instruments: int
    traded: int
    archetypes: Mapping[str, int]
    intended: Mapping[str, int]


@dataclass
class _Tally:
    """What blocks leave behind, by part number; positions only where they have to be shuffled."""

    writer: Writer
    seed: int
    shuffle: bool
    holdings: dict[int, Holdings] = field(default_factory=dict)
    balances: dict[int, Balances] = field(default_factory=dict)
    members: dict[int, Members] = field(default_factory=dict)
    archetypes: Ints = field(default_factory=lambda: np.zeros(len(NAMES), dtype=np.int64))
    statuses: Ints = field(default_factory=lambda: np.zeros(len(STATUSES), dtype=np.int64))
    positions: int = 0
    requirement: float = 0.0

    def add(self, rows: Rows, legs: Legs, *, part: int) -> None:
        """Funds one block and writes its positions, or keeps them for shuffling."""
        rng = stream(self.seed, "funding", part)
        funding = fund(rng, self.writer.contracts, self.writer.purse, rows=rows, legs=legs)
        holdings = holdings_of(rows, legs, funding)
        if self.shuffle:
            self.holdings[part] = holdings
        else:
            self.writer.positions(holdings, part=part)
        self.balances[part] = balances_of(rows, funding)
        self.members[part] = Members(rows.account, rows.isolated)
        self.archetypes += np.bincount(rows.archetype[~rows.isolated], minlength=len(NAMES))
        self.statuses += np.bincount(funding.status, minlength=len(STATUSES))
        self.positions += legs.lots.size
        self.requirement += funding.requirement


def generate_book(
    folder: str | Path,
    *,
    accounts: int,
    positions_per_account: float,
    underlyings: int,
    seed: int,
    market: str | Path | None = None,
    shuffle: bool = False,
) -> Summary:
    """Writes a synthetic book of an options and perpetuals exchange into `folder`.

    In every contract the lots held long equal the lots held short and the open interest of its mark. The first accounts
    are market makers, who take what the others leave. The same arguments give the same files, byte for byte.

    Args:
      folder: where to write; made if missing, must be empty.
      accounts: number of account ids, at least 2; a few per cent have a second, isolated pool.
      positions_per_account: mean number of legs, above 0, at most 100. With `market` the contracts that are open may
        take more legs than that.
      underlyings: number of coins of the made-up market, up to 16; ignored with `market`.
      seed: any integer >= 0.
      market: an existing book whose instruments, marks, forwards, prices and assets are copied and whose open interest,
        rounded to the lot, is what the accounts hold.
      shuffle: permute the rows of positions and balances; the positions then stay in memory, about 120 bytes each.

    Returns:
      `Summary`.

    Raises:
      UsageError: an argument outside its range, a folder with something in it, or a market that is no book.
    """
    target = Path(folder)
    _check_sizes(accounts, positions_per_account, underlyings, seed)
    _check_folder(target)
    source = read_market(Path(market)) if market is not None else None
    legs = round(accounts * positions_per_account)
    made = source or made_up_market(stream(seed, "market"), underlyings=underlyings)
    contracts = pack_contracts(made)
    if source is None:
        contracts = restrict(contracts, most=plan_traded(contracts, legs=legs, per_account=positions_per_account))
    plan, contracts = sized(plan_book(contracts, accounts=accounts, legs=legs), contracts, seed=seed)
    target.mkdir(parents=True, exist_ok=True)
    tally = _Tally(Writer(target, accounts, contracts, pack_purse(made, contracts)), seed, shuffle)
    _write_accounts(tally, plan)
    if market is not None:
        copy_market(Path(market), target)
    else:
        _write_market(target, made, contracts)
    return _summary(tally, accounts)


def _check_sizes(accounts: int, positions_per_account: float, underlyings: int, seed: int) -> None:
    """Every argument within its range."""
    limits = {
        "accounts": (accounts, 2, None, "a trade needs two sides"),
        "underlyings": (underlyings, 1, len(COINS), "choose fewer of the built-in coins"),
        "seed": (seed, 0, None, "choose another number"),
    }
    for name, (value, low, high, reason) in limits.items():
        if value < low or (high is not None and value > high):
            wanted = f"at least {low}" if high is None else f"from {low} to {high}"
            message = f"expected {name} to be {wanted}, found {value!r}; {reason}"
            raise UsageError(message)
    if not 0.0 < positions_per_account <= _MOST_POSITIONS:
        message = (
            f"expected positions_per_account to be above 0 and at most {_MOST_POSITIONS:g}, "
            f"found {positions_per_account!r}; ask for more accounts to get a larger book"
        )
        raise UsageError(message)


def _check_folder(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        message = f"expected a new or empty folder, found files at {str(folder)!r}; choose another place"
        raise UsageError(message)


def _write_accounts(tally: _Tally, plan: Plan) -> None:
    """Positions, balances, accounts and funds. Makers are the first accounts and parts, but are drawn last."""
    contracts, seed = tally.writer.contracts, tally.seed
    maker_parts = -(-plan.makers // _MAKER_BLOCK)
    room = contracts.open_lots.copy(), contracts.open_lots.copy()
    for block in range(num_blocks(plan)):
        rng = stream(seed, "legs", block)
        rows = draw_rows(rng, plan, contracts, block=block)
        tally.add(rows, admit(draw_legs(rng, plan, contracts, rows), *room), part=maker_parts + block)
    wanted = plan.legs - tally.positions
    legs = maker_legs(plan, wanted=wanted, long_room=room[0], short_room=room[1], seed=seed)
    for part in range(maker_parts):
        tally.add(*_maker_block(contracts, plan, legs, part=part, seed=seed), part=part)
    _write_shuffled(tally) if tally.shuffle else tally.writer.balances(joined(_in_order(tally.balances)))
    _write_members(tally, plan.accounts)
    tally.writer.fund(round(_INSURANCE * tally.requirement / float(contracts.settlement_price[0]), 2))


def _maker_block(contracts: Contracts, plan: Plan, legs: Legs, *, part: int, seed: int) -> tuple[Rows, Legs]:
    """The market makers of one part with their legs."""
    account = np.arange(part * _MAKER_BLOCK, min((part + 1) * _MAKER_BLOCK, plan.makers))
    rows = complete_rows(
        stream(seed, "makers", 1 + part),
        contracts,
        account=account,
        isolated=np.zeros(account.size, dtype=np.bool_),
        archetype=np.full(account.size, MAKER),
    )
    low, high = np.searchsorted(legs.row, [account[0], account[-1] + 1])
    return rows, Legs(legs.row[low:high] - account[0], legs.contract[low:high], legs.lots[low:high])


def _write_shuffled(tally: _Tally) -> None:
    """Positions, in parts of a fixed size, and balances, both in an order drawn from the seed."""
    rng = stream(tally.seed, "shuffle")
    holdings = joined(_in_order(tally.holdings))
    tally.holdings.clear()
    order = rng.permutation(holdings.account.size)
    for part, start in enumerate(range(0, max(order.size, 1), _SHUFFLED_PART)):
        tally.writer.positions(taken(holdings, order[start : start + _SHUFFLED_PART]), part=part)
    balances = joined(_in_order(tally.balances))
    tally.writer.balances(taken(balances, rng.permutation(balances.account.size)))


def _write_members(tally: _Tally, accounts: int) -> None:
    """The accounts table; some owners have several accounts, one after the other."""
    new_owner = stream(tally.seed, "owners").random(accounts) >= _SAME_OWNER
    new_owner[0] = True
    tally.writer.members(joined(_in_order(tally.members)), np.cumsum(new_owner) - 1)


def _in_order(parts: Mapping[int, T]) -> list[T]:
    return [parts[number] for number in sorted(parts)]


def _write_market(folder: Path, market: Market, contracts: Contracts) -> None:
    """The made-up contract tables, with the open interest the accounts hold."""
    held = contracts.open_lots / contracts.lots_per_unit
    open_interest = pl.DataFrame({"instrument_id": contracts.ids, "open_interest": held})
    marks = market.tables["marks"].join(open_interest, on="instrument_id", how="left", maintain_order="left")
    for name, frame in (market.tables | {"marks": marks}).items():
        frame.write_parquet(folder / f"{name}.parquet")


def _summary(tally: _Tally, accounts: int) -> Summary:
    contracts = tally.writer.contracts
    return Summary(
        folder=tally.writer.folder,
        accounts=accounts,
        margin_accounts=int(tally.statuses.sum()),
        positions=tally.positions,
        instruments=len(contracts.ids),
        traded=int(np.count_nonzero(contracts.open_lots)),
        archetypes=dict(zip(NAMES, tally.archetypes.tolist(), strict=True)),
        intended=dict(zip(STATUSES, tally.statuses.tolist(), strict=True)),
    )
