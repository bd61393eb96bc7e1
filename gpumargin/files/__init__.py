"""Files that others have written, opened with suspicion."""

from gpumargin.files.footers import Group
from gpumargin.files.reading import (
    Footer,
    checked_dataset,
    is_inside,
    named,
    read_arrow,
    read_footer,
    read_parquet,
    refuse_odd,
    refuse_outside,
    whole_table,
    without_metadata,
)
from gpumargin.files.sums import SUMS, refuse_other_contents

__all__ = [
    "SUMS",
    "Footer",
    "Group",
    "checked_dataset",
    "is_inside",
    "named",
    "read_arrow",
    "read_footer",
    "read_parquet",
    "refuse_odd",
    "refuse_other_contents",
    "refuse_outside",
    "whole_table",
    "without_metadata",
]
