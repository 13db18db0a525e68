"""How much of the training comes from where: weights of names, and rows that obey them.

A name is a source, a language, or any field of documents. Its rows are packed and
shuffled by themselves, in epochs of its own; which name a row of the run is of follows
from weights alone: after every step each name has had its share of all rows, to within
one. So the order stays a pure function of (manifest, seed, step): nothing is drawn, and
a run that goes on, or has other hosts, sees the same.

    weights     given, or size ** (1 / temperature): 1 is as it comes, more is flatter
                (Conneau et al. 2020, arXiv:1911.02116, who take 1 / 0.3)
    unimax      all names alike, but none for more than so many epochs (Chung et al.
                2023, arXiv:2304.09151); what the small ones cannot take, others do
    schedule    weights that move by share of the run, in straight lines between points

An upsampling limit, `most_epochs`, bounds the rows of a name over the whole run, with
any weights; what it frees goes to the others by their weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llm import knobs
from llm.errors import InputError
from llm.knobs import Above0, Amount, section

Weights = tuple[tuple[str, float], ...]


@section("data.mixture")
class Wanted:
    """What a config asks for."""

    # What a training takes of it, see llm/data/mixture.py: a field of documents to mix
    # by (source, language, kind, group, licence, ...); '' takes all as it comes.
    by: str = ""
    # One of: pairs of names and weights; a temperature of sizes, 1 is as they are, more
    # is flatter; UniMax with so many epochs of a name; a schedule of (share of the run,
    # weights).
    weights: Weights = ()
    temperature: Above0 = 1.0
    unimax: Amount = 0.0
    schedule: tuple[tuple[float, Weights], ...] = ()
    # Epochs of a name at most, 0 is without limit.
    most_epochs: Amount = 0.0


class Mixture(NamedTuple):
    """Which row of the run is of which name.

    Attributes:
      names: sorted.
      rows: int64 [steps + 1, names]: rows of each before each step, and in all.
    """

    names: tuple[str, ...]
    rows: np.ndarray

    def places(self, step: int) -> list[tuple[int, int]]:
        """(name, row of that name) of each row of a step's global batch.

        Names take turns within a batch, so that each host has some of all. Beyond its
        end, a run goes on as in its last step.
        """
        known = min(step, len(self.rows) - 2)
        now = self.rows[known + 1] - self.rows[known]
        at = self.rows[known] + (step - known) * now
        found = []
        for name in turns(now).tolist():
            found.append((name, int(at[name])))
            at[name] += 1
        return found

    def shares(self) -> dict[str, float]:
        """Of the rows of the whole run, by name."""
        whole = self.rows[-1] / max(1, self.rows[-1].sum())
        return {name: float(whole[n]) for n, name in enumerate(self.names)}


def plan(wanted: Wanted, rows: Mapping[str, int], steps: int, batch: int) -> Mixture:
    """The mixture of a run.

    Args:
      rows: of an epoch of each name.
      steps, batch: of the run, and rows of a step.

    Raises:
      InputError: weights of names that are not there, limits that cannot be kept.
    """
    check(wanted)
    names = tuple(sorted(rows))
    sizes = np.array([rows[name] for name in names], float)
    at = (np.arange(steps) + 0.5) / steps
    points = wanted.schedule or ((0.0, wanted.weights),)
    knots = np.array([_weights(w, names, sizes, wanted, steps * batch)
                      for _, w in points])  # fmt: skip
    shares = [np.interp(at, [s for s, _ in points], knots[:, n])
              for n in range(len(names))]  # fmt: skip
    shares = np.stack(shares, axis=1)
    shares /= shares.sum(axis=1, keepdims=True)
    if wanted.most_epochs:
        shares = _limited(shares, sizes * wanted.most_epochs / batch, wanted)
    return Mixture(names, _rows(shares, batch))


def check(wanted: Wanted) -> None:
    """Raises InputError for what no data can be mixed by."""
    given = [bool(wanted.weights), wanted.temperature != 1.0, bool(wanted.unimax)]
    if not wanted.by and any([*given, wanted.most_epochs, wanted.schedule]):
        raise InputError(
            got="data.mixture without `by`",
            want="a field to mix by, such as data.mixture.by=language",
        )
    if sum([*given, bool(wanted.schedule)]) > 1:
        raise InputError(
            got="more than one of data.mixture.weights, temperature, unimax, schedule",
            want="one of them",
        )
    try:
        shares = [float(share) for share, _ in wanted.schedule]
    except (TypeError, ValueError) as error:
        raise InputError(
            got=f"data.mixture.schedule {wanted.schedule!r}",
            want="(share of the run, weights) points",
        ) from error
    if shares != sorted(set(shares)) or any(not 0 <= share <= 1 for share in shares):
        raise InputError(
            got=f"data.mixture.schedule at {shares}", want="rising shares, 0 to 1"
        )
    for given in (wanted.weights, *(weights for _, weights in wanted.schedule)):
        _check_weights(given)
    knobs.check(Wanted.PATH, Wanted, vars(wanted))


def unimax(sizes: Sequence[float], budget: float, epochs: float) -> np.ndarray:
    """Shares of names, as even as `epochs` of each allow.

    Args:
      sizes: of the names.
      budget: of all of them together, in the same unit.
    """
    sizes = np.asarray(sizes, float)
    given, left = np.zeros(len(sizes)), budget
    for place, n in enumerate(np.argsort(sizes, kind="stable")):
        given[n] = min(left / (len(sizes) - place), sizes[n] * epochs)
        left -= given[n]
    return given / given.sum()


def turns(counts: np.ndarray) -> np.ndarray:
    """Names, as often as they count, spread over the row: int64 [sum of counts]."""
    counts = np.asarray(counts)
    names = np.repeat(np.arange(len(counts)), counts)
    nth = np.concatenate([np.arange(count) for count in counts])
    return names[np.argsort((nth + 0.5) / counts[names], kind="stable")]


def _check_weights(given: Any) -> None:
    try:
        fine = all(isinstance(n, str) and 0 <= w < np.inf for n, w in given)
    except (TypeError, ValueError):
        fine = False
    if not fine:
        raise InputError(
            got=f"data.mixture weights {given!r}",
            want="weights of 0 or more by name, as (('en', 2.0), ('de', 1.0))",
        )


def _weights(given: Weights, names, sizes, wanted: Wanted, rows: int) -> np.ndarray:
    unknown = [name for name, _ in given if name not in names]
    values = np.array([weight for _, weight in given], float)
    if unknown or (given and not (np.isfinite(values).all() and values.min() >= 0)):
        raise InputError(
            got=f"data.mixture weights {dict(given)}",
            want=f"weights of 0 or more for some of {', '.join(names)}",
        )
    if given:
        if not values.sum():
            raise InputError(got="data.mixture weights of 0", want="one above 0")
        held = dict(given)
        weights = np.array([held.get(name, 0.0) for name in names])
    elif wanted.unimax:
        return unimax(sizes, rows, wanted.unimax)
    else:
        weights = sizes ** (1 / wanted.temperature)
    return weights / weights.sum()


def _limited(shares: np.ndarray, most: np.ndarray, wanted: Wanted) -> np.ndarray:
    """Shares whose sums over the steps are at most `most`."""
    free = np.ones(shares.shape[1], bool)
    made = shares.copy()
    while True:
        over = free & (made.sum(axis=0) > most * (1 + 1e-9))
        if not over.any():
            return made
        free &= ~over
        if not (free & (shares.sum(axis=0) > 0)).any():
            raise InputError(
                got=f"data.mixture.most_epochs {wanted.most_epochs}, which all names "
                "with a weight reach before the run ends",
                want="more epochs, a shorter run, or weights for others",
            )
        held = np.where(free, 0.0, most / np.maximum(shares.sum(axis=0), 1e-300))
        fixed = shares * np.minimum(held, 1.0)
        rest = shares * free
        room = 1 - fixed.sum(axis=1, keepdims=True)
        made = fixed + rest * room / np.maximum(rest.sum(axis=1, keepdims=True), 1e-300)


def _rows(shares: np.ndarray, batch: int) -> np.ndarray:
    """Rows before each step: what is due, rounded so that each batch is full."""
    steps, names = shares.shape
    due = np.cumsum(shares, axis=0) * batch
    rows = np.zeros((steps + 1, names), np.int64)
    for step in range(steps):
        # Behind by whole rows first; the rest goes to who is furthest behind.
        behind = due[step] - rows[step]
        take = np.maximum(np.floor(behind), 0).astype(np.int64)
        for _ in range(batch - int(take.sum())):
            take[np.argmax(behind - take)] += 1
        while take.sum() > batch:
            some = np.where(take > 0, behind - take, np.inf)
            take[np.argmin(some)] -= 1
        rows[step + 1] = rows[step] + take
    return rows
