"""The card of a corpus: one page that says what is in it and what became of the rest.

    write("runs/web")  ->  runs/web/data_card.html

Made from prepare_data.json, which holds the same as JSON, and from train_tokenizer.json
once there are tokens. After Gebru et al. 2018 (arXiv:1803.09010) it says what can be
counted: sources, languages, licences, every stage with its reasons and examples,
copies, personal data, contamination, scores, hashes, and the exact settings.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from llm import files, units
from llm.errors import InputError
from llm.reports import page


def write(workdir: str | pathlib.Path) -> pathlib.Path:
    """Writes `data_card.html` into a run directory and returns its path.

    Raises:
      InputError: no corpus was prepared there.
    """
    workdir = pathlib.Path(workdir)
    prepared = _read(workdir / "prepare_data.json")
    if not prepared:
        raise InputError(
            got=f"no prepare_data.json in {workdir}",
            want="a run directory in which a corpus was prepared",
        )
    tokens = _read(workdir / "train_tokenizer.json")
    settings = {
        "data": prepared.get("settings", {}),
        "tokenizer": tokens.get("settings", {}),
    }
    html = page.render(
        "data_card.html.j2",
        name=workdir.resolve().name,
        p=prepared,
        t=tokens,
        languages=_languages(prepared),
        levels=_levels(prepared["stages"]),
        kinds=_kinds(prepared["stages"]),
        token_kinds=_token_kinds(tokens),
        settings=json.dumps(settings, indent=1, ensure_ascii=False),
    )
    path = workdir / "data_card.html"
    files.write_text(path, html)
    return path


def _languages(p: Mapping[str, Any]) -> list[str]:
    """Those that documents are in, the one with the most text first."""
    counts = p.get("facts", {}).get("language", {})
    return sorted(filter(None, counts), key=lambda name: -counts[name][1])


def _levels(stages) -> list[tuple[str, float, str, str]]:
    """(name, bytes, what is left, what is lost from here to the next)."""
    names = ["read", *(stage["name"] for stage in stages)]
    ends = [(stages[0], "in")] if stages else []
    ends += [(stage, "out") for stage in stages]
    losses = [*map(_loss, stages), ""]
    return [
        (
            name,
            stage[f"bytes_{end}"],
            f"{stage[f'documents_{end}']:,} · {units.size(stage[f'bytes_{end}'])}",
            lost,
        )
        for name, (stage, end), lost in zip(names, ends, losses, strict=False)
    ]


def _loss(stage: Mapping[str, Any]) -> str:
    """`−12.3 %, 40: fewer than 50 words +2`, which is two more reasons."""
    gone = stage["bytes_in"] - stage["bytes_out"]
    if gone <= 0 and not stage["dropped"]:
        return ""
    share = gone / stage["bytes_in"] if stage["bytes_in"] else 0.0
    ranked = sorted(stage["dropped"].items(), key=lambda item: -item[1]["documents"])
    if not ranked:
        return f"−{share:.1%}, parts of texts" if share >= 0.0005 else ""
    count = sum(entry["documents"] for _, entry in ranked)
    reason = ranked[0][0][:40] + ("…" if len(ranked[0][0]) > 40 else "")
    more = f" +{len(ranked) - 1}" if len(ranked) > 1 else ""
    return f"−{share:.1%}, {count:,}: {reason}{more}"


def _kinds(stages) -> list[tuple[str, str]]:
    """(source, language) pairs, those with the most text at any stage first."""
    kinds: dict[tuple[str, str], int] = {}
    for stage in stages:
        for source, languages in stage["kept"].items():
            for language, (_, size) in languages.items():
                kinds[source, language] = max(size, kinds.get((source, language), 0))
    return sorted(kinds, key=lambda kind: (-kinds[kind], kind))


def _token_kinds(t: Mapping[str, Any]) -> list[tuple[str, str, int, int, int]]:
    """(source, language, documents, bytes, tokens), the most tokens first."""
    kinds = [
        (source, language, *counts)
        for source, languages in t.get("kinds", {}).items()
        for language, counts in languages.items()
    ]
    return sorted(kinds, key=lambda kind: (-kind[-1], kind))


def _read(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
