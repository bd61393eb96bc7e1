"""Random blocks: what happens to a book between two recalculations, drawn with a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from gpumargin.tables import Book

Block = dict[str, pl.DataFrame]
NAMES = ("account_id", "pool")


@dataclass
class Draw:
    """Blocks on a book, one after the other.

    Attributes:
      rng: what they are drawn from.
      book: the book as the blocks so far have left it.
    """

    rng: np.random.Generator
    book: Book
    number: int = 0

    def pick(self, frame: pl.DataFrame, count: int) -> pl.DataFrame:
        """Some rows, each as often as it comes."""
        return frame[self.rng.integers(0, frame.height, count)] if frame.height else frame

    def accounts(self) -> pl.DataFrame:
        """Names of all accounts."""
        frames = [self.book.frame(n).select(NAMES) for n in ("positions", "balances")]
        frames += [self.book.frame("accounts").select(NAMES)] if "accounts" in self.book.tables else []
        return pl.concat(frames).unique(maintain_order=True)

    def traded(self) -> pl.DataFrame:
        """Contracts that can be traded, with a price near their mark."""
        terms = self.book.whole_frame("instruments").filter(pl.col("kind") != "spot")
        marks = self.book.whole_frame("marks").select("instrument_id", "mark_price", "mark_iv", "settlement_price")
        joined = terms.join(marks, on="instrument_id", how="inner")
        return joined.filter(pl.col("mark_price").is_not_null() | pl.col("mark_iv").is_not_null())

    def fills(self, count: int) -> pl.DataFrame:
        """Trades: half of them in what the account holds, of which some close or cross it, the rest in anything."""
        held = self.pick(self.book.frame("positions"), count // 2).select(*NAMES, "instrument_id", held="quantity")
        others = self.pick(self.accounts(), count - held.height)
        drawn = self.pick(self.traded(), others.height).select("instrument_id")
        fresh = pl.concat([others, drawn], how="horizontal").with_columns(held=pl.lit(0.0))
        rows = pl.concat([held, fresh]).join(self.traded(), on="instrument_id", how="inner", maintain_order="left")
        share = self.rng.choice([-2.0, -1.0, -1.0, -0.5, 0.5, 1.0], rows.height)
        size = np.round(self.rng.uniform(0.1, 5, rows.height), 1) * self.rng.choice([-1.0, 1.0], rows.height)
        quantity = np.where(rows["held"].to_numpy() == 0, size, rows["held"].to_numpy() * share)
        price = rows["mark_price"].fill_null(25.0).to_numpy() * self.rng.uniform(0.9, 1.1, rows.height)
        fee = self.rng.choice([0.0, 0.25], rows.height)
        made = rows.select(*NAMES, "instrument_id").with_columns(
            quantity=pl.Series(quantity), price=pl.Series(price), fee=pl.Series(fee)
        )
        return made.filter(pl.col("quantity") != 0).sample(
            fraction=1, shuffle=True, seed=int(self.rng.integers(1 << 30))
        )

    def transfers(self, count: int) -> pl.DataFrame:
        """Payments in and out, in any asset that has a price."""
        assets = self.pick(self.book.frame("prices"), count).select("asset")
        amount = np.round(self.rng.normal(0, 50, count), 3) + 0.001
        return pl.concat([self.pick(self.accounts(), count), assets], how="horizontal").with_columns(
            amount=pl.Series(amount)
        )

    def settlements(self, count: int) -> pl.DataFrame:
        """Contracts that are settled near what they are worth."""
        rows = self.traded().unique("instrument_id", maintain_order=True)
        chosen = rows[np.sort(self.rng.choice(rows.height, min(count, rows.height), replace=False))]
        price = chosen["strike"].fill_null(100.0)
        marks = chosen["mark_price"].fill_null(100.0).to_numpy()
        near = np.where(chosen["strike"].is_null().to_numpy(), marks, price.to_numpy())
        return chosen.select("instrument_id").with_columns(
            price=pl.Series(near * self.rng.uniform(0.8, 1.2, chosen.height))
        )

    def newcomers(self, count: int) -> pl.DataFrame:
        """New accounts, whose names fall anywhere in the order of names."""
        self.number += 1
        letters = self.rng.choice(list("abcxyz"), count)
        names = [f"{letter}cct-new-{self.number}-{i}" for i, letter in enumerate(letters)]
        return pl.DataFrame(
            {"account_id": names, "pool": ["cross", "isolated-9"] * (count // 2) + ["cross"] * (count % 2)}
        )

    def listings(self, count: int) -> Block:
        """New options between the strikes of old ones, with marks."""
        self.number += 1
        stamp = self.book.frame("marks")["timestamp"].max()
        is_live = (pl.col("kind") == "option") & (pl.col("expiry") > pl.lit(stamp))
        options = self.book.frame("instruments").filter(is_live)
        rows = self.pick(options, count).with_columns(
            pl.Series("instrument_id", [f"NEW-{self.number}-{i}" for i in range(count)]),
            strike=pl.col("strike") * pl.Series(self.rng.uniform(0.97, 1.03, count)),
        )
        columns = {"instrument_id": rows["instrument_id"], "mark_iv": self.rng.uniform(0.4, 0.9, count)}
        return {"instruments": rows, "marks": pl.DataFrame(columns).with_columns(timestamp=pl.lit(stamp))}

    def orders(self, count: int) -> pl.DataFrame:
        """Open orders, some of which replace or cancel others."""
        side, quantity = self.rng.choice(["buy", "sell"], count), self.rng.choice([0.0, 1.0, 2.5], count)
        ids = [f"order-{i}" for i in self.rng.integers(0, 3, count)]
        drawn = self.pick(self.traded(), count).select("instrument_id", price=pl.col("mark_price").fill_null(20.0))
        frame = pl.concat([self.pick(self.accounts(), count), drawn], how="horizontal")
        return frame.with_columns(order_id=pl.Series(ids), side=pl.Series(side), quantity=pl.Series(quantity)).unique(
            [*NAMES, "order_id"], keep="last", maintain_order=True
        )

    def market(self) -> Block:
        """New prices of everything: spot by up to 2 %, vols by up to 2 points."""
        moved = {"marks": ("mark_price",), "prices": ("price", "collateral_price"), "forwards": ("forward",)}
        move = float(self.rng.uniform(0.98, 1.02))
        found: Block = {}
        for name, columns in moved.items():
            frame = self.book.frame(name)
            if name == "prices":
                frame = frame.with_columns(
                    pl.when(pl.col("price") < 10).then(c).otherwise(pl.col(c) * move).alias(c) for c in columns
                )
            else:
                frame = frame.with_columns(pl.col(c) * move for c in columns)
            found[name] = frame
        vols = self.rng.uniform(-0.02, 0.02, found["marks"].height)
        found["marks"] = found["marks"].with_columns(pl.col("mark_iv") + pl.Series(vols))
        return found

    def block(self, *, size: int, orders: bool = False, listings: bool = False) -> Block:
        """One block of everything."""
        made: Block = {"accounts": self.newcomers(2)}
        made |= {"fills": self.fills(size), "transfers": self.transfers(max(size // 3, 1))}
        made |= {"settlements": self.settlements(2)} if self.rng.random() < 0.5 else {}
        made |= {"orders": self.orders(max(size // 4, 1))} if orders else {}
        joined = pl.concat([made["fills"], _trades_of(self, made["accounts"])])
        made["fills"] = joined
        return made | (self.listings(3) if listings else {})


def _trades_of(draw: Draw, accounts: pl.DataFrame) -> pl.DataFrame:
    """First trades of new accounts."""
    drawn = draw.pick(draw.traded(), accounts.height).select(
        "instrument_id", price=pl.col("mark_price").fill_null(20.0)
    )
    rows = pl.concat([accounts, drawn], how="horizontal").with_columns(quantity=pl.lit(1.5), fee=pl.lit(0.0))
    return rows.select(*NAMES, "instrument_id", "quantity", "price", "fee")
