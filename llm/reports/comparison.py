"""Two evaluated runs beside each other: which is better, at what, and by how much.

Items that both answered are paired by task and by what they ask, so the difference has
an interval of pairs: Newcombe's for shares, the paired bootstrap's for all else, also
for BLEU, chrF and macro-F1, which only all items together have. A figure whose interval
holds zero is no difference that these items show.
"""

import json
import pathlib
from typing import Any

from llm import evals, files, json_text, metrics
from llm.errors import InputError
from llm.reports import page

FILE = "evaluate_items.jsonl"
_SHOWN = 5  # items of a task that one model wins, and that the other does
_RESAMPLES = 300  # of figures that take long


def read(workdir: str) -> dict[tuple[str, str], dict[str, Any]]:
    """{(task, id): item} of an evaluation; InputError for what is not one."""
    path = pathlib.Path(workdir) / FILE
    if not path.is_file():
        raise InputError(
            got=f"no {FILE} in {workdir}{files.relative_to(workdir)}",
            want="the workdir of an evaluation",
            do="evaluate first: configs/evaluate.py",
        )
    found = {}
    for number, line in enumerate(json_text.lines(path), start=1):
        try:
            item = json.loads(line)
            if "values" in item:
                found[item["task"], item["id"]] = item
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                got=f"{path}, line {number} ({type(error).__name__}: {error})",
                want="a line that an evaluation wrote",
                do="evaluate again",
            ) from error
    return found


def _by_content(items: dict[tuple[str, str], dict[str, Any]]) -> dict[Any, Any]:
    """Items by what they ask; by their ids where an older run does not say it."""
    found: dict[Any, Any] = {}
    for (task, id), item in items.items():
        key = item.get("content") or id
        place = 0  # the same question may stand there twice
        while (task, key, place) in found:
            place += 1
        found[task, key, place] = item
    return found


def _paired(one: str, other: str) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The items of both runs, by the same keys.

    Raises:
      InputError: no item that both have, or one id that asks two things.
    """
    mine, theirs = read(one), read(other)
    ids = [key for key in mine if key in theirs]
    if not all(run[key].get("content") for run in (mine, theirs) for key in ids):
        by_id = [{(t, i, 0): x for (t, i), x in run.items()} for run in (mine, theirs)]
        mine, theirs = by_id
    else:
        changed = [k for k in ids if mine[k]["content"] != theirs[k]["content"]]
        mine, theirs = _by_content(mine), _by_content(theirs)
        same = len(mine.keys() & theirs.keys())
        if changed and 2 * same < min(len(mine), len(theirs)):
            task, id = changed[0]
            raise InputError(
                got=f"{len(changed)} of {len(ids)} items of {one} and {other} that "
                f"have one id and ask different things, such as {id} of {task}",
                want="two evaluations of the same items",
            )
    if not mine.keys() & theirs.keys():
        raise InputError(
            got=f"no item that both {one} and {other} answered",
            want="two evaluations of the same tasks and files",
        )
    return mine, theirs


def compare(one: str, other: str) -> dict[str, Any]:
    """Figures of both runs and their differences, `other` less `one`, task by task.

    Raises:
      InputError: no item that both have.
    """
    mine, theirs = _paired(one, other)
    shared = [key for key in mine if key in theirs]
    tasks: dict[str, Any] = {}
    for name in dict.fromkeys(key[0] for key in shared):
        keys = [key for key in shared if key[0] == name]
        pairs = [(mine[key], theirs[key]) for key in keys]
        alone = [
            sum(key[0] == name and key not in them for key in us)
            for us, them in ((mine, theirs), (theirs, mine))
        ]
        tasks[name] = {
            "items": len(keys),
            "only_one": alone[0],
            "only_other": alone[1],
            "figures": _of_items(pairs) | _of_all(pairs, _metrics(one, name)),
            "examples": _examples(pairs),
        }
    return {"runs": [one, other], "tasks": tasks}


def _of_items(pairs) -> dict[str, Any]:
    """Figures that are means of items."""
    figures = {}
    for figure in pairs[0][0]["values"]:
        both = [
            (a["values"][figure], b["values"][figure])
            for a, b in pairs
            if figure in a["values"] and figure in b["values"]
        ]
        if not both:
            continue
        left, right = zip(*both, strict=True)
        figures[figure] = {
            "one": metrics.ratio(left).as_json(),
            "other": metrics.ratio(right).as_json(),
            "difference": metrics.difference(left, right).as_json(),
        }
    return figures


def _metrics(workdir: str, task: str) -> list[str]:
    """The figures of all items together that a run has of a task."""
    try:
        made = json.loads((pathlib.Path(workdir) / "evaluate.json").read_text("utf-8"))
    except (OSError, ValueError):
        return []
    of_task = made.get(task, {})
    known = [name for name, metric in evals.metrics().items() if metric.pooled]
    return [name for name in known if isinstance(of_task, dict) and name in of_task]


def _of_all(pairs, names: list[str]) -> dict[str, Any]:
    """Figures that only all items together have, each by its own statistic."""
    figures = {}
    for name in names:
        statistic = evals.metrics()[name].pooled(pairs)
        one, other = (
            metrics.resampled(
                lambda counts, run=run, of=statistic: of(run, counts),
                len(pairs),
                resamples=_RESAMPLES,
            )
            for run in (0, 1)
        )
        gap = metrics.resampled_difference(statistic, len(pairs), resamples=_RESAMPLES)
        parts = {"one": one, "other": other, "difference": gap}
        figures[name] = {part: figure.as_json() for part, figure in parts.items()}
    return figures


def verdict(figure: str, made: dict[str, Any]) -> str:
    """'better', 'worse', 'other' (changed, of a figure that is neither) or 'same': what
    the interval of a difference says of the second run."""
    low, high = made["difference"]["interval"]
    if low <= 0 <= high:
        return "same"
    better = _better(figure)
    if not better:
        return "other"
    return "better" if (low > 0) == (better == "higher") else "worse"


def _better(figure: str) -> str:
    """Which way a figure is better; '' of one that makes no model the better one."""
    # That of a changed prompt is called "accuracy, typos".
    metric = evals.metrics().get(figure.partition(",")[0])
    return metric.better if metric else ""


def html(made: dict[str, Any]) -> str:
    """The page of a comparison."""
    names = [pathlib.Path(run).name or run for run in made["runs"]]
    if names[0] == names[1]:
        names = made["runs"]
    return page.render(
        "comparison.html.j2", names=names, tasks=made["tasks"], verdict=verdict
    )


def _examples(pairs) -> list[dict[str, Any]]:
    """Items in which the first figure that can be better differs, the same number of
    either kind."""
    found: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
    for a, b in pairs:
        figure = next(filter(_better, a["values"]), "")
        if figure not in b["values"] or not (a.get("input") or a.get("prompt")):
            continue
        (x, weight), (y, other) = a["values"][figure], b["values"][figure]
        gap = y / (other or 1) - x / (weight or 1)
        if _better(figure) == "lower":
            gap = -gap
        won = int(gap > 0)
        if gap and len(found[won]) < _SHOWN:
            found[won].append(
                {
                    "id": a["id"],
                    "better": won,
                    "input": a.get("input") or a["prompt"],
                    "target": a.get("target", ""),
                    "outputs": [
                        str(i.get("output") or i.get("completion", ""))[:2000]
                        for i in (a, b)
                    ],
                }
            )
    return [*found[0], *found[1]]
