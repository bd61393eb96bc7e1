"""Claims about how the long tests are shared out: each runs in one share, and those of a model in a file together."""

from __future__ import annotations

import pytest

from tests.sampled import share, share_of

IDS = [
    f"tests/test_{file}.py::test_{claim}[{model}{case}]"
    for file in ("bits", "every")
    for claim in ("a", "b")
    for model in ("derive-pm1", "derive-pm2", "span", "aave-v3")
    for case in ("@2026-11-20-finite", "@2026-11-20", "")
]


def test_every_share_has_tests() -> None:
    assert {share_of(each, 3) for each in IDS} == {1, 2, 3}
    assert {share_of(each, 1) for each in IDS} == {1}


@pytest.mark.parametrize("shares", [2, 6])
def test_cases_of_a_model_in_one_file_stay_together(shares: int) -> None:
    found: dict[tuple[str, str], set[int]] = {}
    for each in IDS:
        file, _, name = each.partition("::")
        model = name.partition("[")[2].partition("@")[0].rstrip("]")
        found.setdefault((file, model), set()).add(share_of(each, shares))
    assert len(found) == 8
    assert all(len(own) == 1 for own in found.values())


@pytest.mark.parametrize("text", ["0/6", "7/6", "2", "a/b", "1/0"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        share(text)


def test_a_share_is_read_as_it_is_said() -> None:
    assert share("2/6") == (2, 6)
