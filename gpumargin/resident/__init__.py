"""End of block: a book that stays on the devices, changed in place and margined again."""

from gpumargin.resident.book import ResidentBook as ResidentBook
from gpumargin.resident.change import Change as Change
