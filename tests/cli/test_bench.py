"""Claims about the verb that measures: every stage apart, beside the limits of the machine; and two compared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from gpumargin.bench.counting import bytes_of, operations
from gpumargin.bench.limits import Limits
from gpumargin.bench.stages import Work, beside_limits, timings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Call

ON_DEVICE = ("upload", "contract stage", "leg stage", "account stage", "legs and accounts", "download")
STAGES = {"cold start", "ingest", "pack", *ON_DEVICE, "write"}
TINY = ("--accounts", 20, "--positions-per-account", 3, "--repeats", 2)


def document(**changes: Any) -> dict[str, Any]:
    """A measurement as the verb writes it."""
    stages = {
        "leg stage": {"min": 1.0, "median": 2.0, "samples": 3},
        "write": {"min": 0.5, "median": 0.5, "samples": 3},
    }
    plain = {"case": {"seed": 1, "repeats": 3}, "machine": {"load": 0.1}, "versions": {}, "shape": {}}
    return {"format": 1, **plain, "stages": stages, "digest": "ab", **changes}


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.mark.slow
def test_every_stage_is_timed_and_the_same_book_has_the_same_digest(call: Call, tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    for path in (first, second):
        done = call("bench", *TINY, "--out", path, "--device", "cpu", columns=200)
        assert done.exit_code == 0, done.stderr
        assert "leg stage" in done.stderr
    found = json.loads(first.read_text())
    assert set(found["stages"]) == STAGES
    assert all(0 < s["min"] <= s["median"] for s in found["stages"].values())
    assert {name: found["stages"][name]["samples"] for name in ("cold start", "leg stage")} == {
        "cold start": 3,
        "leg stage": 2,
    }
    assert all(found["stages"][name]["share_of_limit"] > 0 for name in ON_DEVICE)
    assert found["stages"]["leg stage"]["operations"] % (2 * found["shape"]["legs"]) == 0
    assert all(rate > 1e6 for rate in found["limits"].values())
    done = call("bench", "--compare", first, second, "--format", "json")
    assert json.loads(done.stdout)["digests_equal"] is True


def test_two_measurements_are_compared_stage_by_stage(call: Call, tmp_path: Path) -> None:
    slower = document(stages={"leg stage": {"min": 3.0, "median": 3.0, "samples": 3}}, digest="cd", shape={"legs": 7})
    a, b = written(tmp_path / "a.json", document()), written(tmp_path / "b.json", slower)
    done = call("bench", "--compare", a, b, "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {
        "stages": [{"stage": "leg stage", "first_s": 2.0, "second_s": 3.0, "ratio": 1.5}],
        "digests_equal": False,
        "differences": ["shape.legs"],
    }
    shown = call("bench", "--compare", a, b)
    assert "1.5" in shown.stdout
    assert "digests: different" in shown.stderr
    assert "digests: equal" in call("bench", "--compare", a, a).stderr


def test_another_file_is_no_measurement(call: Call, tmp_path: Path) -> None:
    ours, other = written(tmp_path / "a.json", document()), written(tmp_path / "b.json", {"stages": []})
    done = call("bench", "--compare", ours, other)
    assert done.exit_code == 2
    assert "b.json" in done.stderr


def test_a_model_that_is_not_there_is_a_usage_error(call: Call) -> None:
    assert call("bench", *TINY, "--model", "no-such").exit_code == 2


def test_a_gpu_that_is_not_there_ends_before_a_book_is_made(call: Call) -> None:
    if jax.default_backend() != "cpu":
        pytest.skip("there is a GPU")
    done = call("bench", "--accounts", 10_000_000, "--device", "gpu")
    assert done.exit_code == 5
    assert "JAX sees no GPU" in done.stderr


def test_operations_count_elements_reductions_and_trips() -> None:
    x = jnp.ones((3, 5))
    assert operations(lambda x: x * x + 1, x) == 2 * 15
    assert operations(lambda x: jnp.max(x, axis=1), x) == 15
    assert operations(lambda x: lax.fori_loop(0, 7, lambda _, y: y + x, x), x) == 7 * 15
    assert operations(jax.jit(lambda x: jnp.exp(x)), x) == 15
    assert operations(lambda x: x[::-1].reshape(-1), x) == 0
    assert operations(lambda x: x + 1, jnp.ones(4, jnp.int32)) == 0


def test_bytes_are_those_of_every_array() -> None:
    assert bytes_of({"a": jnp.ones((2, 3), jnp.float32)}, [jnp.ones(4, jnp.int32)]) == 24 + 16


def test_share_of_the_limit_is_what_the_dearer_of_bytes_and_operations_takes() -> None:
    seconds = timings([{"legs": 4.0, "write": 1.0}, {"legs": 2.0, "write": 1.0}])
    found = beside_limits(seconds, {"legs": Work(30, 10)}, Limits(copy=20.0, multiply_add=10.0))
    assert found["legs"]["median"] == 3.0
    assert found["legs"]["share_of_limit"] == pytest.approx(0.5)
    assert found["legs"]["bytes_per_s"] == 10.0
    assert found["write"] == {"min": 1.0, "median": 1.0, "samples": 2}
