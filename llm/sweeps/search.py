"""What a sweep tries: a space of config fields, three searches of it, and halving.

A space is a tuple of axes, each a field, how it varies, and its values:

    (("optimizer.learning_rate", "log", 1e-3, 1e-1),
     ("train.batch_size", "values", 4, 8),
     ("model.width+model.mlp", "values", (128, 352), (256, 704)))

`values` are taken as they are; `log` and `linear` are ranges. Fields joined by `+`
change together, a tuple each. Everything here is a function of the space, the seed and
the trials so far, so that a sweep that was stopped proposes what it would have.

Successive halving is asynchronous (arXiv:1810.05934): at each rung a trial goes on if
it is among the best 1/factor of all that have come so far.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from llm import registry
from llm.errors import InputError

_HOWS = ("values", "linear", "log")


class Axis(NamedTuple):
    """Fields that change together, and how.

    Attributes:
      fields: dotted names.
      how: values, linear or log.
      values: for `values` one tuple a choice, as long as `fields`; else (low, high).
      whole: whether a range is one of whole numbers.
    """

    fields: tuple[str, ...]
    how: str
    values: tuple
    whole: bool = False

    @property
    def name(self) -> str:
        """The fields as the space joins them."""
        return "+".join(self.fields)

    def at(self, share: float) -> dict[str, Any]:
        """The fields at a share of the range, from 0 to 1."""
        low, high = self.values
        if self.how == "log":
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        value = round(value) if self.whole else float(f"{value:.6g}")
        return {self.fields[0]: min(max(value, low), high)}

    def chosen(self, index: int) -> dict[str, Any]:
        """The fields of a choice."""
        return dict(zip(self.fields, self.values[index], strict=True))


def axes(space: Sequence[Sequence], trial: ConfigDict) -> tuple[Axis, ...]:
    """The axes of a space, checked against the config of a trial.

    Raises:
      InputError: a field that there is not, or values that it cannot have.
    """
    if not space or not isinstance(space, (tuple, list)):
        raise InputError(
            got=f"sweep.space {space!r}",
            want="axes such as (('optimizer.learning_rate', 'log', 1e-3, 1e-1),)",
        )
    made = tuple(_axis(entry, trial) for entry in space)
    fields = [field for axis in made for field in axis.fields]
    double = sorted({field for field in fields if fields.count(field) > 1})
    if double:
        raise InputError(got=f"{', '.join(double)} twice in sweep.space", want="once")
    return made


def _axis(entry: Any, trial: ConfigDict) -> Axis:
    listed = isinstance(entry, (tuple, list)) and len(entry) > 2
    if not listed or not isinstance(entry[0], str) or entry[1] not in _HOWS:
        raise InputError(
            got=f"the axis {entry!r} in sweep.space",
            want=f"(field, {' or '.join(_HOWS)}, value, value, ...)",
        )
    name, how, *values = entry
    fields = tuple(name.split("+"))
    for field in fields:
        _check_field(field, trial)
    if how == "values":
        rows = [v if len(fields) > 1 else (v,) for v in values]
        for row in rows:
            if not isinstance(row, (tuple, list)) or len(row) != len(fields):
                raise InputError(
                    got=f"{row!r} for {name}", want=f"a tuple of {len(fields)} values"
                )
            applied(trial, dict(zip(fields, row, strict=True)))
        return Axis(fields, how, tuple(map(tuple, rows)))
    numbers = all(type(v) in (int, float) and math.isfinite(v) for v in values)
    fits = len(values) == 2 and len(fields) == 1 and numbers and values[0] < values[1]
    if not fits or (how == "log" and values[0] <= 0):
        above = ", both above 0" * (how == "log")
        raise InputError(
            got=f"{entry!r} in sweep.space",
            want=f"one field and two numbers, the lower first{above}",
        )
    whole = type(_field(trial, name)) is int
    if whole and not all(type(v) is int for v in values):
        raise InputError(
            got=f"{entry!r} in sweep.space", want=f"whole numbers for {name}"
        )
    axis = Axis(fields, how, tuple(values), whole)
    for share in (0.0, 1.0):
        applied(trial, axis.at(share))
    return axis


def _field(trial: ConfigDict, name: str) -> Any:
    value = trial
    for part in name.split("."):
        value = value[part]
    return value


def _check_field(name: str, trial: ConfigDict) -> None:
    try:
        found = _field(trial, name)
    except (KeyError, TypeError, AttributeError):
        known = list(_dotted(trial.to_dict()))
        group = name.rpartition(".")[0]
        beside = [field for field in known if field.rpartition(".")[0] == group]
        raise InputError(
            got=f"the field {name!r} in sweep.space, which a trial does not have",
            want=f"one of {', '.join(beside)}{registry.hint(name, beside)}"
            if group and beside
            else f"a field of its config{registry.hint(name, known)}",
        ) from None
    if isinstance(found, ConfigDict):
        raise InputError(
            got=f"{name!r} in sweep.space, which holds other fields", want="one field"
        )


def _dotted(config: dict[str, Any], prefix: str = ""):
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def applied(trial: ConfigDict, values: dict[str, Any]) -> ConfigDict:
    """A copy of a trial's config with the values of some fields.

    Raises:
      InputError: a value of another type than the field's.
    """
    made = ConfigDict(trial.to_dict())
    for field, value in values.items():
        held = _field(made, field)
        right = type(value) is type(held) or (type(held), type(value)) == (float, int)
        if not right or (type(value) is float and not math.isfinite(value)):
            raise InputError(
                got=f"{value!r} for {field}, which is {held!r}",
                want=f"a {type(held).__name__}",
            )
        folder, _, name = field.rpartition(".")
        (_field(made, folder) if folder else made)[name] = value
    return made


def grid(axes: Sequence[Axis], points: int) -> list[dict[str, Any]]:
    """Every combination, with so many points of a range; the last axis is fastest."""
    columns = []
    for axis in axes:
        if axis.how == "values":
            column = [axis.chosen(i) for i in range(len(axis.values))]
        else:
            column = [axis.at(i / max(points - 1, 1)) for i in range(points)]
            column = [v for i, v in enumerate(column) if v not in column[:i]]
        columns.append(column)
    return [_merged(parts) for parts in itertools.product(*columns)]


def drawn(axes: Sequence[Axis], seed: int, number: int) -> dict[str, Any]:
    """The random values of a trial, a function of the seed and its number."""
    rng = np.random.default_rng((seed, number))
    return _merged(
        axis.chosen(int(rng.integers(len(axis.values))))
        if axis.how == "values"
        else axis.at(float(rng.random()))
        for axis in axes
    )


def _merged(parts) -> dict[str, Any]:
    return {field: value for part in parts for field, value in part.items()}


class Seen(NamedTuple):
    """A trial as a search sees it; `value` is lower for better, None while it runs.

    Attributes:
      halved: whether it was stopped early, so that its value is one of fewer steps.
    """

    values: dict[str, Any]
    value: float | None
    steps: int = 0
    halved: bool = False


def suggested(axes: Sequence[Axis], seed: int, seen: Sequence[Seen]) -> dict[str, Any]:
    """What the tree-structured Parzen estimator of optuna tries next.

    Trials that run count as bad ones, so that others are tried beside them.
    """
    import optuna
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {}
    for axis in axes:
        if axis.how == "values":
            space[axis.name] = CategoricalDistribution(range(len(axis.values)))
        else:
            kind = IntDistribution if axis.whole else FloatDistribution
            space[axis.name] = kind(*axis.values, log=axis.how == "log")
    sampler = optuna.samplers.TPESampler(
        seed=seed + len(seen), n_startup_trials=max(5, 2 * len(axes)),
        multivariate=True, constant_liar=True,
    )  # fmt: skip
    study = optuna.create_study(sampler=sampler)
    for trial in seen:
        state = TrialState.PRUNED if trial.halved else TrialState.COMPLETE
        value = trial.value
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING if value is None else state,
                value=None if trial.halved else value,
                params={axis.name: _of(axis, trial.values) for axis in axes},
                distributions=space,
                intermediate_values={trial.steps: value} if trial.halved else {},
            )
        )
    asked = study.ask(space).params
    return _merged(
        axis.chosen(asked[axis.name])
        if axis.how == "values"
        else {axis.fields[0]: float(f"{asked[axis.name]:.6g}") if not axis.whole
              else asked[axis.name]}
        for axis in axes
    )  # fmt: skip


def _of(axis: Axis, values: dict[str, Any]) -> Any:
    """A trial's parameter of an axis, as optuna knows it."""
    if axis.how == "values":
        return axis.values.index(tuple(values[field] for field in axis.fields))
    return values[axis.fields[0]]


def rungs(first: int, factor: int, last: int) -> tuple[int, ...]:
    """The steps, before the last, at which trials are compared."""
    if not factor:
        return ()
    steps = itertools.takewhile(
        lambda at: at < last, (first * factor**k for k in itertools.count())
    )
    return tuple(steps)


def goes_on(value: float, at_rung: Sequence[float], factor: int) -> bool:
    """Whether a value is among the best 1/factor of all at its rung, itself included.

    Lower is better; what is not a number never goes on.
    """
    if math.isnan(value):
        return False
    ranked = sorted(v for v in at_rung if not math.isnan(v))
    return value <= ranked[max(1, len(ranked) // factor) - 1]
