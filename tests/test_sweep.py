"""Spaces, searches and halving of sweeps: what is tried, in which order, and until."""

import itertools
import math
import random

import pytest

from llm import config
from llm.errors import InputError
from llm.sweeps import search

RATE = ("optimizer.learning_rate", "log", 1e-4, 1.0)


def axes(*space):
    return search.axes(space, config.base())


def test_a_grid_is_every_combination():
    found = search.grid(
        axes(
            ("optimizer.learning_rate", "log", 1e-3, 1e-1),
            ("model.layers", "values", 2, 4),
            ("model.width+model.mlp", "values", (64, 128), (128, 256)),
        ),
        points=3,
    )
    rates, layers, shapes = (0.001, 0.01, 0.1), (2, 4), ((64, 128), (128, 256))
    assert found == [
        {"optimizer.learning_rate": rate, "model.layers": count,
         "model.width": width, "model.mlp": mlp}
        for rate, count, (width, mlp) in itertools.product(rates, layers, shapes)
    ]  # fmt: skip


def test_whole_numbers_of_a_range_come_once():
    found = search.grid(axes(("model.layers", "linear", 1, 3)), points=9)
    assert found == [{"model.layers": n} for n in (1, 2, 3)]


def test_random_values_follow_their_axis():
    space = axes(RATE, ("model.layers", "values", 1, 2), ("train.ema", "linear", 0, 1))
    found = [search.drawn(space, 7, number) for number in range(4000)]
    assert found[17] == search.drawn(space, 7, 17) != search.drawn(space, 8, 17)
    rates = [math.log10(v["optimizer.learning_rate"]) for v in found]
    assert min(rates) >= -4 and max(rates) <= 0
    # A quarter of the trials in each decade: the deviation of a share is 0.007.
    for decade in range(-4, 0):
        share = sum(decade <= rate < decade + 1 for rate in rates) / len(rates)
        assert share == pytest.approx(0.25, abs=0.035)
    assert sum(v["model.layers"] == 1 for v in found) == pytest.approx(2000, abs=150)
    assert sum(v["train.ema"] for v in found) == pytest.approx(2000, abs=90)


def test_the_bayesian_search_learns():
    """It finds a narrow valley that as many random trials miss."""
    pytest.importorskip("optuna")
    space = axes(RATE, ("model.layers", "values", 1, 2, 3, 4))

    def value(values):
        distance = math.log10(values["optimizer.learning_rate"]) + 1.3
        return distance**2 + (values["model.layers"] != 3)

    bests = {"bayes": [], "random": []}
    for seed in range(3):
        seen = []
        for _ in range(40):
            values = search.suggested(space, seed, seen)
            seen.append(search.Seen(values, value(values)))
        bests["bayes"].append(min(s.value for s in seen))
        drawn = [search.drawn(space, seed, number) for number in range(40)]
        bests["random"].append(min(map(value, drawn)))
    assert sorted(bests["bayes"])[1] < 0.3 * sorted(bests["random"])[1]


def test_the_bayesian_search_is_a_function_of_what_it_saw():
    pytest.importorskip("optuna")
    space = axes(RATE, ("model.width+model.mlp", "values", (64, 128), (128, 256)))
    rng = random.Random(0)
    seen = [search.Seen(search.drawn(space, 0, n), rng.random()) for n in range(12)]
    seen[3] = seen[3]._replace(halved=True, steps=20)
    seen[4] = seen[4]._replace(value=math.inf)
    seen[11] = seen[11]._replace(value=None)
    first = search.suggested(space, 0, seen)
    assert first == search.suggested(space, 0, seen)
    assert (first["model.width"], first["model.mlp"]) in ((64, 128), (128, 256))
    assert 1e-4 <= first["optimizer.learning_rate"] <= 1


@pytest.mark.parametrize(
    "entry, shown",
    [
        (("optimizer.learning_rat", "log", 1e-3, 1.0), "did you mean"),
        (("optimizer", "values", 1), "holds other fields"),
        (("optimizer.learning_rate", "around", 1.0), "values or linear or log"),
        (("optimizer.learning_rate", "log", 0.0, 1.0), "above 0"),
        (("optimizer.learning_rate", "log", 1.0, 0.1), "lower first"),
        (("optimizer.learning_rate", "log", 1.0, math.inf), "two numbers"),
        (("optimizer.learning_rate", "values", math.inf), "want a float"),
        (("seed", "log", 1.5, 2.5), "whole numbers for seed"),
        ((5, "values", 1), "want (field,"),
        (("optimizer.learning_rate", "linear", 1, 2, 3), "two numbers"),
        (("model.layers", "values", 2, 2.5), "2.5 for model.layers"),
        (("model.layers", "values", True), "want a int"),
        (("optimizer.name", "values", 3), "3 for optimizer.name"),
        (("model.width+model.mlp", "values", 64, 128), "a tuple of 2"),
        (("model.width+model.mlp", "log", 64, 128), "one field"),
        ("model.layers", "want (field,"),
    ],
)
def test_a_space_that_cannot_be(entry, shown):
    with pytest.raises(InputError, match=shown.replace("(", r"\(")):
        axes(entry)


def test_no_axis_and_the_same_twice():
    with pytest.raises(InputError, match=r"sweep\.space \(\)"):
        axes()
    with pytest.raises(InputError, match=r"learning_rate twice"):
        axes(RATE, ("optimizer.learning_rate", "values", 0.1))


def test_rungs():
    assert search.rungs(10, 3, 270) == (10, 30, 90)
    assert search.rungs(10, 3, 271) == (10, 30, 90, 270)
    assert search.rungs(0, 0, 300) == ()


def test_halving_keeps_the_best_share():
    """Of trials that come in any order the share that goes on is about 1 / factor."""
    rng = random.Random(0)
    for factor in (2, 3, 4):
        values = [rng.random() for _ in range(400)]
        went_on = [
            search.goes_on(value, values[: n + 1], factor)
            for n, value in enumerate(values)
        ]
        # By the definition: how many of those so far are better.
        for n, value in enumerate(values):
            better = sum(other < value for other in values[: n + 1])
            assert went_on[n] == (better < max(1, (n + 1) // factor))
        assert sum(went_on) / len(values) == pytest.approx(1 / factor, abs=0.05)
    assert not search.goes_on(math.nan, [math.nan, 1.0], 2)
    assert search.goes_on(1.0, [math.nan, 1.0], 2)


def test_values_are_applied_to_a_copy():
    base = config.base()
    made = search.applied(base, {"model.layers": 9, "optimizer.learning_rate": 1})
    assert (made.model.layers, made.optimizer.learning_rate) == (9, 1)
    assert base.model.layers != 9
    assert made.optimizer.name == base.optimizer.name
