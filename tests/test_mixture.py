"""Weights are those of the papers, and rows obey them."""

import numpy as np
import pytest
from test_loader import B, T, build, equal, make_split

from llm.data import mixture
from llm.data.mixture import Wanted
from llm.errors import InputError

SIZES = {"de": 40, "en": 1000, "fr": 7}


def shares(steps=200, batch=B, sizes=SIZES, **wanted):
    return mixture.plan(Wanted(by="language", **wanted), sizes, steps, batch).shares()


def test_weights_of_sizes():
    assert shares() == pytest.approx({"de": 40 / 1047, "en": 1000 / 1047,
                                      "fr": 7 / 1047}, abs=1e-3)  # fmt: skip
    flat = {name: size ** (1 / 3.3) for name, size in SIZES.items()}
    whole = sum(flat.values())
    wanted = {name: size / whole for name, size in flat.items()}
    assert shares(temperature=3.3) == pytest.approx(wanted, abs=1e-3)


def test_given_weights():
    found = shares(weights=(("fr", 1), ("en", 3)))
    assert found == {"de": 0, "en": 0.75, "fr": 0.25}


def test_unimax_is_the_algorithm_of_the_paper():
    """Algorithm 1 of Chung et al. 2023, written out."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(1, 1000, 12).astype(float)
        budget, epochs = float(rng.integers(10, 8000)), float(rng.integers(1, 6))
        order = sorted(range(12), key=lambda n: sizes[n])
        left, given = budget, {}
        for i, n in enumerate(order):
            even = left / (12 - i)
            given[n] = sizes[n] * epochs if even > sizes[n] * epochs else even
            left -= given[n]
        whole = sum(given.values())
        wanted = [given[n] / whole for n in range(12)]
        assert np.allclose(mixture.unimax(sizes, budget, epochs), wanted)


def test_unimax_of_a_run():
    # 1600 rows: 7 * 4 and 40 * 4 are less than a third each, and the rest goes to en.
    found = shares(unimax=4)
    assert found == pytest.approx(
        {"fr": 28 / 1600, "de": 160 / 1600, "en": 1412 / 1600}, abs=1e-3
    )


def test_every_batch_is_full_and_no_name_is_ever_off_by_a_row():
    rng = np.random.default_rng(1)
    for _ in range(20):
        names = rng.integers(1, 7)
        points = tuple(
            (share, tuple((f"n{n}", float(rng.random())) for n in range(names)))
            for share in (0.0, 0.3, 1.0)
        )
        sizes = {f"n{n}": int(rng.integers(1, 90)) for n in range(names)}
        steps, batch = 77, int(rng.integers(1, 20))
        made = mixture.plan(Wanted("x", schedule=points), sizes, steps, batch)
        counts = np.diff(made.rows, axis=0)
        assert (counts.sum(axis=1) == batch).all() and (counts >= 0).all()
        at = (np.arange(steps) + 0.5) / steps
        given = np.stack([
            np.interp(at, [p[0] for p in points],
                      [p[1][n][1] / sum(w for _, w in p[1]) for p in points])
            for n in range(names)
        ], axis=1)  # fmt: skip
        due = np.cumsum(given / given.sum(axis=1, keepdims=True), axis=0) * batch
        assert np.abs(made.rows[1:] - due).max() < max(names, 2)
        for step in (0, 40, 76):
            found = [name for name, _ in made.places(step)]
            assert np.array_equal(np.bincount(found, minlength=names), counts[step])


def test_rows_of_a_name_follow_each_other():
    made = mixture.plan(Wanted("x", weights=(("a", 1), ("b", 2.3))),
                        {"a": 9, "b": 4}, 30, 7)  # fmt: skip
    seen = {0: 0, 1: 0}
    for step in range(45):  # beyond the end, too
        for name, row in made.places(step):
            assert row == seen[name]
            seen[name] += 1


def test_most_epochs():
    found = mixture.plan(
        Wanted("x", temperature=1e9, most_epochs=2), SIZES, 200, B
    ).rows[-1]
    assert found.tolist() == pytest.approx([80, 1506, 14], abs=2)
    with pytest.raises(InputError, match="before the run ends"):
        shares(most_epochs=1, steps=2000)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"by": "", "temperature": 2.0}, "without `by`"),
        ({"temperature": 2.0, "unimax": 1.0}, "more than one"),
        ({"temperature": 0.0}, "above 0"),
        ({"unimax": -1.0}, "0 or more"),
        ({"weights": (("xx", 1.0),)}, "some of de, en, fr"),
        ({"weights": (("de", -1.0),)}, "weights of 0 or more"),
        ({"weights": (("de", 0.0),)}, "one above 0"),
        ({"schedule": ((0.5, ()), (0.1, ()))}, "rising shares"),
    ],
)
def test_what_cannot_be(wanted, words):
    with pytest.raises(InputError, match=words):
        mixture.plan(Wanted(**{"by": "language"} | wanted), SIZES, 10, B)


class Split:
    """A split whose documents have a language each."""

    def __init__(self):
        self.split = make_split(np.random.default_rng(0).integers(2, 70, 50))
        self.languages = ["de" if n % 5 == 0 else "en" for n in range(50)]

    def __getattr__(self, name):
        return getattr(self.split, name)

    def values(self, field):
        assert field == "language"
        return self.languages


def test_rows_of_the_loader():
    split = Split()
    wanted = Wanted("language", weights=(("de", 1), ("en", 1)))
    data = build(split).mixed(wanted, 100)
    alone = build(split).mixed(Wanted("language", weights=(("de", 1),)), 100)
    seen = []
    for step in range(12):
        batch = data[step]
        documents = batch["tokens"] // 1000
        german = [
            {split.languages[d] for d in row[on > 0]}
            for row, on in zip(documents, batch["segments"], strict=True)
        ]
        assert all(len(names) == 1 for names in german), "names share no row"
        which = [names.pop() for names in german]
        assert which.count("de") == which.count("en") == B // 2
        rows = [row for row, name in zip(batch["tokens"], which, strict=True)
                if name == "de"]  # fmt: skip
        seen += rows
    # The rows of a name are those that it has alone, in their order.
    whole = [row for step in range(6) for row in alone[step]["tokens"]]
    assert all(np.array_equal(a, b) for a, b in zip(seen, whole, strict=True))


def test_hosts_and_resumption_see_the_same():
    split = Split()
    wanted = Wanted("language", temperature=2.0)
    whole = build(split).mixed(wanted, 50)
    halves = [build(split, hosts=(n, 2)).mixed(wanted, 50) for n in range(2)]
    for step in (0, 7, 49, 60):
        parts = [half[step] for half in halves]
        both = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        assert equal(both, whole[step])
    for step, batch in zip(range(20, 24), whole.iterate(20), strict=False):
        assert equal(batch, whole[step])
    assert T and set(whole.document_ids(3)) <= set(split.ids)


@pytest.mark.parametrize(
    "wanted",
    [
        {"weights": "'en'"}, {"weights": (("a", "much"),)}, {"weights": (("a", -1.0),)},
        {"weights": (("a", np.nan),)}, {"schedule": "ab"}, {"schedule": ((0.0, "x"),)},
    ],
)  # fmt: skip
def test_weights_that_are_none(wanted):
    with pytest.raises(InputError, match=r"data\.mixture"):
        mixture.check(Wanted(by="language", **wanted))
