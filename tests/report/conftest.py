"""The snapshot of the tiny book, as the tests of snapshots have it."""

from tests.solvency.conftest import snapshot as snapshot
