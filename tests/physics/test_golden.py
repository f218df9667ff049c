"""Rows that were stored before MuJoCo C moved into the compiled loop are rolled out again to the bit."""

import numpy as np
import pytest
from physics import golden

STORED = golden.stored()
ALWAYS = ("ant", "hopper", "halfcheetah", "cartpole")


def check(stored, case, found):
    """Every bit where the digits can be the same; elsewhere short of what chaos makes of a last digit."""
    assert found["lengths"] == stored[case]["lengths"] or golden.conditions() not in STORED
    if golden.conditions() in STORED:
        assert found["sha256"] == stored[case]["sha256"]
    else:
        wanted = np.array(stored[case]["returns"])
        assert np.median(np.abs(np.array(found["returns"]) - wanted) / (1 + np.abs(wanted))) < 1e-3


@pytest.mark.parametrize(
    "case", [*ALWAYS, *(pytest.param(c, marks=pytest.mark.soak) for c in golden.CASES if c not in ALWAYS)]
)
def test_every_body_gives_the_stored_bits(case):
    stored = STORED.get(golden.conditions(), next(iter(STORED.values())))
    if case not in stored:
        pytest.skip("its digits hang on where the compiler keeps a number, and users run optimised functions")
    check(stored, case, golden.numbers(golden.play(case)))
