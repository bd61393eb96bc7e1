"""Margin from sensitivities: the worked case and the published totals, through the public kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from gpumargin_kernels.sensitivity import (
    CurvatureBuckets,
    RiskBuckets,
    across_classes,
    bucket_margins,
    concentration,
    curvature_margin,
    curvature_share,
    curvature_tail,
    layer_margin,
    vol_of_weight,
)
from tests.reference.folders import read_cases

pytestmark = pytest.mark.reference

HANDLED = {f"risk_vectors/{name}.json" for name in ("simm_equity_vol_published", "simm_like")}
ZERO = jnp.zeros(())
HORIZON_DAYS = 14.0
ALONE, EXCLUDED = "Residual", "12"  # bucket names with a meaning in these files


class Factors(NamedTuple):
    """One account: a row per risk factor."""

    bucket: list[str]
    delta: list[float]
    vega: list[list[tuple[float, float]]]  # days to expiry and vega per vol point


def read(name: str) -> dict[str, Any]:
    """One file; skips with its reason where it is absent."""
    content = read_cases(f"risk_vectors/{name}.json")
    if content is None:
        pytest.skip(f"no risk_vectors/{name}.json on this machine; set GPUMARGIN_REFERENCE")
    return content


def matrix(pairs: dict[str, float], names: list[str]) -> np.ndarray:
    """A symmetric table with ones on its diagonal, from keys that join two names."""
    found = np.eye(len(names))
    for key, value in pairs.items():
        i, j = (names.index(name) for name in key.split("|"))
        found[i, j] = found[j, i] = value
    return found


def by_bucket(table: dict[str, float], names: list[str]) -> jnp.ndarray:
    return jnp.array([table[name] for name in names], dtype=float)


def linear_tables(given: dict[str, Any], weight: jnp.ndarray, threshold: dict[str, float]) -> RiskBuckets:
    names = list(given["RW"])
    return RiskBuckets(
        weight=weight,
        correlation=by_bucket(given["rho"], names),
        threshold=by_bucket(threshold, names),
        across=jnp.array(matrix(given["gamma"], names)),
        is_alone=jnp.array([name == ALONE for name in names]),
    )


def layers(factors: Factors, given: dict[str, Any]) -> dict[str, Any]:
    """Vega and curvature of one account, and what they are made of."""
    names = list(given["RW"])
    bucket = jnp.array([[names.index(name) for name in factors.bucket]])
    points = vol_of_weight(by_bucket(given["RW"], names), HORIZON_DAYS)[bucket]
    width = max(1, *map(len, factors.vega))
    days, vega = (
        jnp.array([[row[i] for row in rows] + [float(1 - i)] * (width - len(rows)) for rows in factors.vega])
        for i in (0, 1)
    )
    risk = given["HVR"] * points * jnp.sum(vega, axis=1)[None, :]
    curvature = points * jnp.sum(curvature_share(days, HORIZON_DAYS) * vega, axis=1)[None, :]
    weight = given["VRW"] if isinstance(given["VRW"], dict) else dict.fromkeys(names, given["VRW"])
    tables = linear_tables(given, by_bucket(weight, names), given["vega_threshold"])
    bent = CurvatureBuckets(
        tables.correlation, tables.across, tables.is_alone, jnp.array([name == EXCLUDED for name in names])
    )
    return {
        "bucket": bucket,
        "VR": risk[0],
        "CVR": curvature[0],
        "vega_margin": layer_margin(risk, bucket, tables, ZERO)[0],
        "curvature_margin": curvature_margin(curvature, bucket, bent, ZERO)[0],
    }


def assert_buckets(found: dict[str, Any], tables: RiskBuckets, expected: dict[str, Any]) -> None:
    """Margin and net of every bucket of the delta layer, and the tail of the curvature of those that offset."""
    names = list(expected["K_delta"])
    weighted, size = (found[name][None, :] for name in ("WS_delta", "CR_delta"))
    buckets = bucket_margins(weighted, size, found["bucket"], tables.correlation, ZERO)
    assert np.asarray(buckets.margin[0]) == close([expected["K_delta"][name] for name in names])
    assert np.asarray(buckets.net[0]) == close([expected["S_delta"][name] for name in names])
    kept = jnp.where(tables.is_alone[found["bucket"][0]], 0, found["CVR"])
    tail = curvature_tail(jnp.sum(kept), jnp.sum(jnp.abs(kept)))
    assert float(tail.theta) == close(expected["curvature"]["theta"])
    assert float(tail.factor) == close(expected["curvature"]["lambda"])


def close(expected: Any) -> Any:
    return pytest.approx(expected, rel=1e-10, abs=1e-6)


@pytest.mark.slow
def test_every_figure_of_the_worked_case_is_reproduced() -> None:
    content = read("simm_like")
    given, expected = content["inputs"], content["expected"]
    rows = given["factors"]
    factors = Factors(
        [row["bucket"] for row in rows],
        [row["delta_1pct"] for row in rows],
        [[(v["expiry_days"], v["vega_1pt"]) for v in row["vega"]] for row in rows],
    )
    found = layers(factors, given)
    names, delta = list(given["RW"]), jnp.array([factors.delta])
    tables = linear_tables(given, by_bucket(given["RW"], names), given["delta_threshold"])
    size = concentration(delta, tables.threshold[found["bucket"]])
    found["CR_delta"] = size[0]
    found["WS_delta"] = (tables.weight[found["bucket"]] * delta * size)[0]
    found["delta_margin"] = layer_margin(delta, found["bucket"], tables, ZERO)[0]
    found["class_im"] = found["delta_margin"] + found["vega_margin"] + found["curvature_margin"]
    assert_buckets(found, tables, expected)
    others = given["other_classes_im"]
    classes = ["crypto", *others]
    margins = jnp.array([[float(found["class_im"]), *others.values()]])
    found["total_im"] = across_classes(margins, jnp.array(matrix(given["psi"], classes)), ZERO)[0]
    for name in ("CR_delta", "WS_delta", "VR", "CVR"):
        assert np.asarray(found[name]) == close(expected[name]), name
    for name in ("delta_margin", "vega_margin", "curvature_margin", "class_im", "total_im"):
        assert float(found[name]) == close(expected[name]), name


def published() -> list[Any]:
    """Every published test with its parameters, all but the first marked slow: each has shapes of its own."""
    content = read_cases("risk_vectors/simm_equity_vol_published.json") or {"tests": [], "parameters": {}}
    found = [
        pytest.param(case, content["parameters"], id=case["name"], marks=pytest.mark.slow if i else [])
        for i, case in enumerate(content["tests"])
    ]
    reason = "no published totals on this machine; set GPUMARGIN_REFERENCE"
    return found or [pytest.param(None, None, marks=pytest.mark.skip(reason=reason), id="absent")]


@pytest.mark.parametrize(("case", "given"), published())
def test_published_vega_and_curvature_totals_are_reproduced(case: dict[str, Any], given: dict[str, Any]) -> None:
    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for one in case["sens"]:
        rows.setdefault((one["bucket"], one["qualifier"]), []).append((one["tenor_days"], one["vega_usd_per_volpoint"]))
    found = layers(Factors([bucket for bucket, _ in rows], [], list(rows.values())), given)
    for name in ("vega_margin", "curvature_margin"):
        assert float(found[name]) == close(case[name]), name
    assert float(found["vega_margin"] + found["curvature_margin"]) == pytest.approx(case["published_total"], abs=0.51)
