"""Scaling laws: found again where they are known, and as sure as they say."""

import math

import numpy as np
import pytest

from llm.errors import InputError
from llm.reports import scaling_page
from llm.sweeps import scaling_law
from llm.sweeps.scaling_law import CHINCHILLA, Law, Run

pytestmark = pytest.mark.long

# A law in the range of models that a laptop trains.
SMALL = Law(E=1.4, A=60.0, B=120.0, alpha=0.30, beta=0.33)


def ladder(
    law, noise=0.0, seed=0, sizes=(1e5, 3e5, 1e6, 3e6), spans=(3e5, 1e6, 3e6, 1e7)
):
    rng = np.random.default_rng(seed)
    return [
        Run(n, d, law.loss(n, d) * math.exp(noise * rng.standard_normal()))
        for n in sizes
        for d in spans
    ]


@pytest.mark.parametrize("law", [CHINCHILLA, SMALL])
def test_a_law_without_noise_is_found_again(law):
    sizes, spans = np.geomspace(1e5, 1e10, 6), np.geomspace(1e6, 1e11, 6)
    found = scaling_law.fit(ladder(law, sizes=sizes, spans=spans))
    np.testing.assert_allclose(found, law, rtol=2e-2)
    for n, d in ((1e11, 1e12), (1e6, 1e12)):
        assert found.loss(n, d) == pytest.approx(law.loss(n, d), rel=1e-3)


def test_the_gradient_that_is_written_out():
    """The fit is a minimum: no small step in any direction is better."""
    runs = ladder(SMALL, noise=0.01)
    found = scaling_law.fit(runs)
    logs = np.log(np.array(runs)).T

    def error(theta):
        return scaling_law._huber(
            scaling_law._predicted(theta, logs[0], logs[1]) - logs[2]
        ).sum()

    theta = np.array([*np.log(found[:3]), found.alpha, found.beta])
    least = error(theta)
    rng = np.random.default_rng(0)
    for _ in range(300):
        assert error(theta + 1e-3 * rng.standard_normal(5)) >= least - 1e-9


@pytest.mark.parametrize(
    "ladders, draws, least, most",
    [(16, 20, 9, 16), pytest.param(40, 100, 25, 38, marks=pytest.mark.slow)],
)
def test_the_next_rung_lies_in_its_interval(ladders, draws, least, most):
    """Of ladders with noise, about the share that is promised: 0.8, give or take 2.8
    deviations."""
    held = 0
    for seed in range(ladders):
        runs = ladder(SMALL, noise=0.01, seed=seed)
        law = scaling_law.fit(runs)
        low, high = scaling_law.interval(runs, law, 1e7, 3e7, share=0.8, draws=draws)
        noise = 0.01 * np.random.default_rng(1000 + seed).standard_normal()
        held += low < SMALL.loss(1e7, 3e7) * math.exp(noise) < high
    print(f"{held} of {ladders}")
    assert least <= held <= most


def test_the_page_has_no_table_of_nothing():
    runs = ladder(SMALL)
    ahead = {"loss": 2.0, "interval": (1.9, 2.1)}
    held = {"parameters": 1e6, "tokens": 1e6, "loss": 2.5, "predicted": 2.4}
    held |= {"interval": (2.3, 2.6), "doubts": "alpha = 3 is where the search ends"}
    for some in ([held], []):
        html = scaling_page.write("x", runs, SMALL, {"next": ahead, "held_out": some})
        assert ("2.3000 to 2.6000" in html) == ("Prediction" in html) == bool(some)
        assert (held["doubts"] in html) == bool(some)


BOUND = [
    # Size changes nothing; it helps more steeply than any law; it does harm.
    (lambda n, d: 1.4 + 120 / d**0.33, "alpha = 3"),
    (lambda n, d: 2 + (1e5 / n) ** 6 + 120 / d**0.33, "alpha = 3"),
    (lambda n, d: 2 + n / 1e6 + 120 / d**0.33, "A = 0.00674, alpha = 3"),
    (SMALL._replace(E=0.0).loss, "E = 4.54e-05"),
]


@pytest.mark.parametrize("loss, held", BOUND)
def test_a_law_at_the_bounds_of_its_search_is_doubted(loss, held):
    runs = [Run(n, d, loss(n, d)) for n in (1e5, 3e5, 1e6) for d in (3e5, 1e6, 3e6)]
    law = scaling_law.fit(runs)
    doubts = scaling_law.doubts(law)
    assert doubts.startswith("the ladder does not determine the law")
    assert f": {held}" in doubts and "\n" not in doubts
    result = {"next": {"loss": 2.0, "interval": (1.9, 2.1)}, "held_out": []}
    assert doubts in scaling_page.write("x", runs, law, result)


def test_a_law_within_them_is_not():
    for law in (SMALL, CHINCHILLA, scaling_law.fit(ladder(SMALL, noise=0.01))):
        assert scaling_law.doubts(law) == ""
    result = {"next": {"loss": 2.0, "interval": (1.9, 2.1)}, "held_out": []}
    assert "not determine" not in scaling_page.write("x", ladder(SMALL), SMALL, result)
    assert "alpha = 0.01" in scaling_law.doubts(SMALL._replace(alpha=0.01))
    assert "E = 0" in scaling_law.doubts(SMALL._replace(E=0.0))


def test_too_few_runs():
    for runs in (
        ladder(SMALL)[:5],
        ladder(SMALL, sizes=(1e6,), spans=np.geomspace(1e5, 1e7, 8)),
        ladder(SMALL, sizes=np.geomspace(1e5, 1e7, 8), spans=(1e6,)),
    ):
        with pytest.raises(InputError, match="6 runs or more"):
            scaling_law.fit(runs)


def test_fit_is_the_least_loss_of_its_compute():
    for parameters in (1e8, 1e9, 7e10):
        tokens = CHINCHILLA.tokens(parameters)
        compute = 6 * parameters * tokens
        # By trial: the same compute spent on other sizes is worse.
        sizes = parameters * np.exp(np.linspace(-2, 2, 4001))
        losses = [CHINCHILLA.loss(n, compute / 6 / n) for n in sizes]
        assert sizes[int(np.argmin(losses))] == pytest.approx(parameters, rel=2e-3)
        assert CHINCHILLA.parameters(compute) == pytest.approx(parameters, rel=1e-9)
        # The corrected fit agrees with the rule of thumb (Besiroglu et al., figure 5).
        assert 15 < tokens / parameters < 30
    # Chinchilla itself, 70B parameters on 1.4T tokens, read about 1.94 nats.
    assert CHINCHILLA.loss(70e9, 1.4e12) == pytest.approx(1.97, abs=0.05)
