"""Solved examples in front of a question, and which questions are asked.

Shots are the first records of another file or, without one, of the file itself, which
are then not asked. With a group, such as the subject, they are the first of the same
group. A seed that is not 0 shuffles them before: nothing else depends on chance.
"""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from llm.data import eval_records
from llm.data.eval_records import Item
from llm.errors import InputError


class Asked(NamedTuple):
    """The items to ask, with the solved ones before each; and what to record of it."""

    items: list[Item]
    shots: list[list[Item]]
    about: dict[str, Any]
    every: list[Item] = []  # of the files, also those that are not asked


def asked(
    path: str,
    *,
    fields: str = "",
    columns: str = "",
    shots: int = 0,
    shots_path: str = "",
    group: str = "",
    seed: int = 0,
    limit: int = 0,
) -> Asked:
    """Reads the items of a task.

    Raises:
      InputError: what cannot be read, or too few solved examples.
    """
    read = eval_records.read(path, fields=fields, columns=columns)
    about = {
        "path": path, "sha256": read.sha256, "items": len(read.items), "limit": limit,
        "fields": fields, "shots": shots, "shots_path": shots_path, "seed": seed,
    }  # fmt: skip
    if min(shots, limit) < 0:
        raise InputError(got=f"shots {shots} and limit {limit}", want="0 or more")
    if not shots:
        chosen = eval_records.spread(read.items, limit)
        return Asked(chosen, [[] for _ in chosen], about, read.items)
    source = read
    if shots_path:
        source = eval_records.read(shots_path, fields=fields, columns=columns)
        about["shots_sha256"] = source.sha256
    solved = _by_group(source.items, shots, group, seed)
    own = set() if shots_path else {x.id for some in solved.values() for x in some}
    chosen = eval_records.spread([x for x in read.items if x.id not in own], limit)
    before = []
    for item in chosen:
        name = str(item[group]) if group else ""
        found = solved.get(name, [])
        if len(found) < shots:
            raise InputError(
                got=f"{len(found)} solved examples{f' of {name}' if name else ''} in "
                f"{shots_path or path}",
                want=f"shots, {shots}",
            )
        before.append(found)
    if not chosen:
        raise InputError(
            got=f"{len(read.items)} items in {path}, all of them shots",
            want="more of them, or shots_path",
        )
    return Asked(chosen, before, about, read.items)


def _by_group(
    solved: Sequence[Item], shots: int, group: str, seed: int
) -> dict[str, list[Item]]:
    solved = list(solved)
    if seed:
        random.Random(seed).shuffle(solved)
    found: dict[str, list[Item]] = {}
    for item in solved:
        some = found.setdefault(str(item[group]) if group else "", [])
        if len(some) < shots:
            some.append(item)
    return found
