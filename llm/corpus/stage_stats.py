"""What a stage did, counted in parts that add up to the same in any order.

A count is plain JSON. Examples bear the place of their document, so that of many parts
the first three stay; scores are told by how many texts have about which, in two digits,
since sums of fractions depend on their order.
"""

from collections.abc import Mapping
from typing import Any

_EXAMPLES = 3  # documents shown for each reason of a drop
_NAMES = 200  # scores of a stage that are told apart, such as items of an examination


def new(name: str) -> dict[str, Any]:
    """Nothing yet, of the stage `name`."""
    return {
        "name": name,
        "documents_in": 0,
        "documents_out": 0,
        "bytes_in": 0,
        "bytes_out": 0,
        "dropped": {},
        "removed": {},
        "kept": {},
        "scores": {},
    }


def came(count: dict[str, Any], size: int) -> None:
    """A document of so many bytes comes to the stage."""
    count["documents_in"] += 1
    count["bytes_in"] += size


def left(count: dict[str, Any], about: Mapping[str, Any]) -> None:
    """A document leaves the stage."""
    count["documents_out"] += 1
    count["bytes_out"] += about["bytes"]
    language = str(about["meta"].get("language", ""))
    kept = count["kept"].setdefault(about["source"], {}).setdefault(language, [0, 0])
    kept[0] += 1
    kept[1] += about["bytes"]


def dropped(
    count: dict[str, Any], reason: str, place: list[int], about: Mapping[str, Any]
) -> None:
    """A document ends here, of which `place` says the order among all."""
    nothing = {"documents": 0, "bytes": 0, "examples": []}
    entry = count["dropped"].setdefault(reason, nothing)
    entry["documents"] += 1
    entry["bytes"] += about["bytes"]
    if len(entry["examples"]) < _EXAMPLES or place < entry["examples"][-1][0]:
        entry["examples"].append([place, called(about), about["head"]])
        entry["examples"] = sorted(entry["examples"])[:_EXAMPLES]


def called(about: Mapping[str, Any]) -> str:
    """What a person knows a document by: its address, else its id."""
    return str(about["meta"].get("url") or about["id"])


def scored(count: dict[str, Any], scores: Mapping[str, float]) -> None:
    """What a document scored."""
    for name, score in scores.items():
        texts = count["scores"].setdefault(name, {})
        about = f"{score:.2g}"
        texts[about] = texts.get(about, 0) + 1


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both together."""
    dropped = {}
    for reason in sorted({*first["dropped"], *second["dropped"]}):
        parts = [
            c["dropped"][reason] for c in (first, second) if reason in c["dropped"]
        ]
        examples = sorted(example for part in parts for example in part["examples"])
        dropped[reason] = {
            "documents": sum(part["documents"] for part in parts),
            "bytes": sum(part["bytes"] for part in parts),
            "examples": examples[:_EXAMPLES],
        }
    sums = ("documents_in", "documents_out", "bytes_in", "bytes_out")
    return {
        "name": first["name"],
        **{name: first[name] + second[name] for name in sums},
        "dropped": dropped,
        "removed": _added(first["removed"], second["removed"]),
        "kept": _added(first["kept"], second["kept"]),
        "scores": _added(first["scores"], second["scores"]),
    }


def told(count: dict[str, Any]) -> dict[str, Any]:
    """As a report has it: examples are (id, beginning), scores their quantiles.

    `scored` says how many scores there are in all; those of most texts are told.
    """
    dropped = {
        reason: entry | {"examples": [example[1:] for example in entry["examples"]]}
        for reason, entry in count["dropped"].items()
    }
    most = sorted(count["scores"], key=lambda n: (-sum(count["scores"][n].values()), n))
    scores = {name: _quantiles(count["scores"][name]) for name in most[:_NAMES]}
    return count | {"dropped": dropped, "scores": scores, "scored": len(most)}


def _added(first, second):
    """Trees of numbers and of lists of numbers, leaf by leaf."""
    if isinstance(first, dict):
        names = sorted({*first, *second})
        return {
            name: _added(first[name], second[name])
            if name in first and name in second
            else first.get(name, second.get(name))
            for name in names
        }
    if isinstance(first, list):
        return [a + b for a, b in zip(first, second, strict=True)]
    return first + second


def _quantiles(texts: Mapping[str, int]) -> dict[str, float]:
    """Documents, and what a tenth, half and nine tenths of them score at most."""
    ranked = sorted((float(about), count) for about, count in texts.items())
    whole, found, seen = sum(texts.values()), {}, 0
    shares = [("10%", 0.1), ("50%", 0.5), ("90%", 0.9), ("most", 1.0)]
    for value, count in ranked:
        seen += count
        while shares and seen >= shares[0][1] * whole:
            found[shares.pop(0)[0]] = value
    return {"documents": whole, **found}
