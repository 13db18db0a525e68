"""Trains trials that differ in some fields: trials.json, sweep.json and sweep.html.

`c.trial` is the config of a trial, `c.sweep` says what varies and how it is searched.
The same command goes on where it was stopped, and does nothing twice; more
`sweep.trials`, or other `sweep.processes`, are the same sweep.
"""

import pathlib
from typing import Literal

from etils import epath
from ml_collections import ConfigDict

from llm import config, files, run_dir, units
from llm.errors import InputError
from llm.knobs import Count, Positive, section
from llm.reports import sweep_page
from llm.sweeps import search, trials


@section("sweep")
class Sweep:
    """A search of fields."""

    # Fields of `trial`, the config of a trial, that trials differ in: axes such as
    # ("optimizer.learning_rate", "log", 1e-3, 1e-1), see llm/sweeps/search.py.
    space: tuple = ()
    # grid, random, or bayes (needs optuna); how many trials random and bayes take, and
    # how many points of a range a grid has.
    search: Literal["grid", "random", "bayes"] = "random"
    trials: Positive = 16
    points: Positive = 5
    # Trials at once, which share the GPUs, TPU chips or cores of this machine.
    processes: Positive = 1
    # What is compared, a figure of train.json or evaluate.json, and whether the best is
    # the least (min) or the most (max).
    metric: str = "validation_loss"
    goal: Literal["min", "max"] = "min"
    # Successive halving: of the trials at a rung, one in so many goes on; 0 trains all
    # to their end. And the step of the first rung, 0 for the first validation; each
    # next one is so many times that.
    halving: Count = 0
    first_rung: Count = 0


SECTIONS = (Sweep,)


def run(c: ConfigDict, workdir: str) -> None:
    """Runs what is missing of the sweep, and writes its page after each trial."""
    axes, wanted = check(c)
    own = c.to_dict()
    own["sweep"] = {**own["sweep"], "trials": 0, "processes": 0}  # may change
    run_dir.claim(workdir, own, device="", devices=0)
    root, s = pathlib.Path(workdir), c.sweep
    combinations = search.grid(axes, s.points) if s.search == "grid" else []
    total = len(combinations) or s.trials
    where = root / "sweep.html"

    def propose(known):
        number = len(known)
        if number >= total:
            return None
        if s.search == "grid":
            return combinations[number]
        if s.search == "random":
            return search.drawn(axes, c.seed, number)
        return search.suggested(axes, c.seed, [_seen(t, wanted) for t in known])

    def show(known):
        files.write_text(epath.Path(where), sweep_page.write(root, known, axes, wanted))

    known = trials.run(
        root, c.trial, propose, wanted, processes=s.processes, total=total, each=show
    )
    show(known)
    leader = trials.best(known, wanted)
    if leader is None:
        raise InputError(
            got=f"{len(known)} trials, none of which came to its end; the last: "
            f"{known[-1].reason}",
            want="one that does",
            do=f"see {root / 'trials'}",
        )
    result = {
        "metric": wanted.metric,
        "best": leader._asdict(),
        "statuses": {
            status: sum(t.status == status for t in known)
            for status in ("done", "halved", "failed")
        },
        "seconds": round(sum(t.seconds for t in known), 1),
    }
    run_dir.write(workdir, "sweep.json", result)
    print(
        f"best of {len(known)}: trial {leader.number}, {trials.named(leader.values)}: "
        f"{wanted.metric} {leader.value:.4f}; "
        f"{units.duration(result['seconds'])} of trials"
    )
    print(f"page: {where}")


def check(c: ConfigDict) -> tuple[tuple[search.Axis, ...], trials.Wanted]:
    """The axes and what is wanted; InputError for a sweep that cannot be."""
    s = c.sweep
    if "trial" not in c:
        raise InputError(
            got="a sweep without `trial`", want="the config of a trial, c.trial",
            do="see configs/sweep.py",
        )  # fmt: skip
    config.check(c.trial)
    axes = search.axes(s.space, c.trial)
    if s.search == "bayes":
        try:
            import optuna  # noqa: F401
        except ImportError as error:
            raise InputError(
                got="sweep.search 'bayes' without the package optuna",
                want="it installed",
                do='pip install -e ".[sweep]"',
            ) from error
    for slot in range(s.processes):
        trials.share(slot, s.processes)
    t = c.trial.train
    first = s.first_rung or t.validate_every
    if s.halving:
        every = t.validate_every
        fits = s.halving > 1 and first > 0 and every and t.steps
        if not fits or first % every or not s.metric.startswith("validation_"):
            raise InputError(
                got=f"sweep.halving {s.halving} from step {first} by "
                f"{s.metric}, of {t.steps} steps that validate every {every}",
                want="halving of 2 or more, by a figure of validations, and "
                "sweep.first_rung at one of them",
            )
    rungs = search.rungs(first, s.halving, t.steps)
    sign = 1 if s.goal == "min" else -1
    return axes, trials.Wanted(s.metric, sign, rungs, s.halving)


def _seen(trial: trials.Trial, wanted: trials.Wanted) -> search.Seen:
    """A trial as the search sees it; one that failed is as bad as can be."""
    value = trial.value
    if trial.status == "failed":
        value = float("inf")
    elif value is not None:
        value *= wanted.sign
    return search.Seen(trial.values, value, trial.steps, trial.status == "halved")
