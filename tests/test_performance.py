"""Appendix A1: exponents of known laws are found, systems are timed in turn, stored tables fit what is measured."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lib.errors import UserError
from lib.performance import figures, scaling


def rows(law, amounts=(100, 200, 400, 800), rounds=3, noise=0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    found = [
        {"system": "x", "unit": "pixels", "size": n, "amount": n, "round": r, "seconds": law(n) * np.exp(noise * e)}
        for r, e in enumerate(rng.normal(size=rounds))
        for n in amounts
    ]
    return pd.DataFrame(found)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(power):
    found = scaling.exponent(rows(lambda n: 3e-4 * n**power, noise=0.1))
    assert found.value == pytest.approx(power, abs=1e-6)
    assert found.low <= power <= found.high


def test_a_fixed_cost_lowers_the_exponent_and_not_the_projection():
    measured = rows(lambda n: 0.5 + 0.001 * n)
    assert scaling.exponent(measured).value < 0.6
    assert scaling.projected(measured, 100_000) == pytest.approx(100.5)


def test_systems_are_timed_in_turn():
    found = scaling.measure("laptop", ["renderer", "face detector"], rounds=2, smallest=2)
    first = [("renderer", 96), ("renderer", 128), ("face detector", 128), ("face detector", 192)]
    assert list(zip(found["system"], found["size"], strict=True)) == first + first[::-1]
    assert (found["seconds"] > 0).all()
    assert found.loc[found["system"] == "renderer", "amount"].tolist()[:2] == [96**2, 128**2]
    with pytest.raises(UserError, match="did you mean 'renderer'"):
        scaling.measure("laptop", ["rendere"])


def test_the_stored_rounds_are_of_these_systems_and_sizes():
    stored = figures.stored("scaling")
    for name, part in stored.groupby("system"):
        assert set(part["size"]) == set(scaling.SYSTEMS[name].sizes)
        assert part.groupby("round")["size"].count().unique().tolist() == [len(scaling.SYSTEMS[name].sizes)]
    assert set(stored["system"]) == set(scaling.SYSTEMS)
    assert stored["round"].nunique() >= 3
