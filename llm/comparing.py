"""Two evaluated runs beside each other: which is better, at what, and by how much.

Items that both answered are paired by task and id, so the difference has the interval
of the paired bootstrap. A figure whose interval holds zero is no difference that these
items show.
"""

import json
import pathlib
from typing import Any

from llm import metrics, page
from llm.errors import InputError

FILE = "evaluate_items.jsonl"
_SHOWN = 5  # items of a task that one model wins, and that the other does
_LESS_IS_BETTER = ("bits_per_byte", "nats_per_token", "log_loss")
# Figures that say of no model that it is better.
_NEUTRAL = ("stereotype", "gap_nats", "ended")


def read(workdir: str) -> dict[tuple[str, str], dict[str, Any]]:
    """{(task, id): item} of an evaluation; InputError for what is not one."""
    path = pathlib.Path(workdir) / FILE
    if not path.is_file():
        raise InputError(
            got=f"no {FILE} in {workdir}",
            want="the workdir of an evaluation",
            do="evaluate first: configs/evaluate.py",
        )
    found = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
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


def compare(one: str, other: str) -> dict[str, Any]:
    """Figures of both runs and their differences, `other` less `one`, task by task.

    Raises:
      InputError: no item that both have.
    """
    mine, theirs = read(one), read(other)
    shared = [key for key in mine if key in theirs]
    if not shared:
        raise InputError(
            got=f"no item that both {one} and {other} answered",
            want="two evaluations of the same tasks and files",
        )
    tasks: dict[str, Any] = {}
    for name in dict.fromkeys(task for task, _ in shared):
        keys = [key for key in shared if key[0] == name]
        pairs = [(mine[key], theirs[key]) for key in keys]
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
        alone = [
            sum(key[0] == name and key not in them for key in us)
            for us, them in ((mine, theirs), (theirs, mine))
        ]
        tasks[name] = {
            "items": len(keys),
            "only_one": alone[0],
            "only_other": alone[1],
            "figures": figures,
            "examples": _examples(pairs),
        }
    return {"runs": [one, other], "tasks": tasks}


def verdict(figure: str, made: dict[str, Any]) -> str:
    """'better', 'worse', 'other' (changed, of a figure that is neither) or 'same': what
    the interval of a difference says of the second run."""
    low, high = made["difference"]["interval"]
    if low <= 0 <= high:
        return "same"
    name = figure.partition(",")[0]
    if name in _NEUTRAL:
        return "other"
    rose = low > 0
    return "better" if rose != (name in _LESS_IS_BETTER) else "worse"


def html(made: dict[str, Any]) -> str:
    """The page of a comparison."""
    names = [pathlib.Path(run).name or run for run in made["runs"]]
    if names[0] == names[1]:
        names = made["runs"]
    header = (
        f"<h1>{page.escape(' and '.join(names))}</h1>"
        "<p>The same items, answered by both. Differences are the second less the "
        "first, with the 95 % interval of the paired bootstrap.</p>"
    )
    return page.page(
        " and ".join(names),
        header,
        [(name, _section(task, names)) for name, task in made["tasks"].items()],
    )


def _section(task: dict[str, Any], names) -> str:
    kinds = {"better": "good", "worse": "bad", "same": "plain", "other": "warn"}
    words = {
        "better": f"{names[1]} is better",
        "worse": f"{names[0]} is better",
        "same": "no difference shown",
        "other": "differs",
    }
    rows, badges = [], []
    for figure, both in task["figures"].items():
        said = verdict(figure, both)
        badges.append(page.badge(f"{figure}: {words[said]}", kinds[said]))
        cells = [_cell(both[part]) for part in ("one", "other", "difference")]
        rows.append((figure, *cells))
    note = f"items in both: {task['items']}"
    if task["only_one"] or task["only_other"]:
        note += f"; {task['only_one']} and {task['only_other']} in one alone, left out"
    parts = [
        page.table(("figure", *names, "difference"), rows),
        f'<div class="reasons">{"".join(badges)}</div>',
        f'<p class="soft">{page.escape(note)}</p>',
    ]
    for won, label in ((0, names[0]), (1, names[1])):
        shown = [x for x in task["examples"] if x["better"] == won]
        if shown:
            inner = "".join(_example(x, names) for x in shown)
            parts.append(page.details(f"where {label} is better", inner))
    return page.panel("".join(parts))


def _example(example: dict[str, Any], names) -> str:
    given = example["input"]
    target = example["target"]
    head = page.sample("", given + (f"\n\n= {target}" if target else ""), "", "asked")
    answers = "".join(
        page.sample(
            "",
            said or "(nothing)",
            page.badge(name, "good" if n == example["better"] else "bad"),
        )
        for n, (name, said) in enumerate(zip(names, example["outputs"], strict=True))
    )
    return f'{head}<div class="grid">{answers}</div>'


def _cell(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{figure['value']:.4g} ({low:.4g} to {high:.4g})"


def _examples(pairs) -> list[dict[str, Any]]:
    """Items in which the first figure differs, the same number of either kind."""
    found: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
    for a, b in pairs:
        figure = next(iter(a["values"]))
        if figure not in b["values"] or not (a.get("input") or a.get("prompt")):
            continue
        (x, weight), (y, other) = a["values"][figure], b["values"][figure]
        gap = y / (other or 1) - x / (weight or 1)
        if figure in _LESS_IS_BETTER:
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
