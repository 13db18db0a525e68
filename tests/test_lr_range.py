"""The learning-rate range test, on losses whose limit is known by arithmetic."""

import math
import random

import numpy as np
import pytest

from llm import config
from llm.errors import InputError
from llm.reports import lr_curve_page
from llm.sweeps import lr_curve
from llm.training import optim


def descent(curvatures, rates, noise=0.0, seed=0):
    """Losses of stochastic gradient descent on a quadratic, at a growing rate."""
    rng, draw = random.Random(seed), np.random.default_rng(seed)
    x, losses = np.ones(len(curvatures)), []
    for rate in rates:
        losses.append(float(curvatures @ x**2) / 2 + 0.5 + rng.gauss(0, noise))
        x = x - rate * curvatures * (x + 0.3 * draw.standard_normal(len(x)))
        if not np.isfinite(x).all() or np.abs(x).max() > 1e150:
            losses += [math.inf] * (len(rates) - len(losses))
            break
    return losses


def grown(low, high, steps):
    return [low * (high / low) ** (n / (steps - 1)) for n in range(steps)]


@pytest.mark.parametrize("steepest_curvature", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_descent_on_a_quadratic(steepest_curvature, noise):
    """Beyond 2 / curvature it must diverge; what is suggested lies below that."""
    rates = grown(1e-5, 1e2, 400)
    curvatures = steepest_curvature * np.geomspace(0.05, 1.0, 20)
    found = lr_curve.find(rates, descent(curvatures, rates, noise))
    bound = 2 / steepest_curvature
    assert found.steepest <= found.suggested <= found.lowest < found.limit
    assert bound / 100 < found.suggested < bound
    assert bound / 2 < found.limit < 5 * bound


def test_a_loss_that_never_falls():
    rates = grown(1e-6, 1e-5, 100)
    rng = random.Random(0)
    assert lr_curve.find(rates, [2 + rng.gauss(0, 0.1) for _ in rates]) is None
    assert lr_curve.find(rates, [math.nan] * 100) is None
    assert lr_curve.find(rates, [2 + n / 50 for n in range(100)]) is None


def test_a_loss_that_still_falls_has_no_limit():
    rates = grown(1e-6, 1e-3, 200)
    found = lr_curve.find(rates, [3 - n / 100 for n in range(200)])
    assert found.limit is None and found.lowest > 0.8e-3


def test_the_schedule_grows_by_the_same_share():
    factor = optim.schedule("range", 50, first=1e-3, warmup=0.3, final=0.0)
    found = [float(factor(n)) for n in range(50)]
    np.testing.assert_allclose(found, grown(1e-3, 1.0, 50), rtol=1e-5)


@pytest.mark.parametrize("first", [0, -1, math.nan, math.inf, 1.0, 2.0])
def test_a_first_rate_that_does_not_grow_is_refused(first, tmp_path):
    """Before anything is read or written."""
    c = config.load("configs/x", "lr_range", "debug")
    c.schedule.first = float(first)
    with pytest.raises(InputError, match=r"schedule\.first"):
        config.check(c)
    assert not list(tmp_path.iterdir())


def test_the_page_shows_losses_that_run_away():
    rates = grown(1e-5, 1e2, 400)
    losses = descent(np.ones(3), rates)
    html = lr_curve_page.html("<x>", rates, losses, lr_curve.find(rates, losses))
    assert (
        "&lt;x&gt;" in html and "nan" not in html and "inf" not in html.lower()[9000:]
    )
    assert "suggested peak" in html


def test_the_page_says_why_a_rate_is_suggested():
    for found, rate, why in [
        (lr_curve.Found(0.12, 0.2, None), 0.12, "where it falls fastest"),
        (lr_curve.Found(0.02, 0.3, 0.5), 0.1, "a third of the lowest"),
        (lr_curve.Found(0.4, 0.3, 0.5), 0.3, "where it falls fastest"),
    ]:
        assert found.suggested == pytest.approx(rate)
        html = lr_curve_page.html("x", [0.1] * 9, [1.0] * 9, found)
        assert found.why == why and why in html
