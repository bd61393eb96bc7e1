"""Books: read in every form of the contract, typed, defaults filled in."""

from gpumargin.tables.book import Book, ExtraColumns, Source, read_book, read_market, read_tables
from gpumargin.tables.parts import TableLike

__all__ = ["Book", "ExtraColumns", "Source", "TableLike", "read_book", "read_market", "read_tables"]
