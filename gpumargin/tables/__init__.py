"""Books: read in every form of the contract, typed, defaults filled in."""

from gpumargin.tables.book import NO_FILE, Book, ExtraColumns, Source, read_book, read_market, read_tables
from gpumargin.tables.parts import TableLike
from gpumargin.tables.stream import CUT_TABLES, FIRST, BookFiles, Parts, Start, WholeBook, open_book

__all__ = [
    "CUT_TABLES",
    "FIRST",
    "NO_FILE",
    "Book",
    "BookFiles",
    "ExtraColumns",
    "Parts",
    "Source",
    "Start",
    "TableLike",
    "WholeBook",
    "open_book",
    "read_book",
    "read_market",
    "read_tables",
]
