"""The card of a corpus: one page that says what is in it and what became of the rest.

    write("runs/web")  ->  runs/web/data_card.html

Made from prepare_data.json, which holds the same as JSON, and from train_tokenizer.json
once there are tokens. After Gebru et al. 2018 (arXiv:1803.09010) it says what can be
counted: sources, languages, licences, every stage with its reasons and examples,
copies, personal data, contamination, scores, hashes, and the exact settings.
"""

import json
import pathlib
from collections.abc import Mapping, Sized
from typing import Any

from llm import files, units
from llm.errors import InputError
from llm.reports import corpus_sections, page, svg

_ROWS = 25  # of a table


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
    sections = (
        ("Flow", _flow(prepared)),
        ("Stages", _stages(prepared)),
        ("Sources and languages", _kinds(prepared)),
        ("Splits and tokens", _splits(prepared, tokens)),
        ("Copies", _copies(prepared)),
        ("Personal data and licences", _facts(prepared)),
        ("Contamination", _contamination(prepared)),
        ("Scores", _scores(prepared)),
        ("Left out while reading", _skipped(prepared)),
        ("Hashes and settings", _settings(prepared, tokens)),
    )
    name = workdir.resolve().name
    html = page.page(
        f"Data card: {name}",
        _header(name, prepared, tokens),
        [(heading, body) for heading, body in sections if body],
    )
    path = workdir / "data_card.html"
    files.write_text(path, html)
    return path


def _header(name: str, p: Mapping[str, Any], t: Mapping[str, Any]) -> str:
    kept = sum(split["documents"] for split in p["splits"].values())
    size = sum(split["bytes"] for split in p["splits"].values())
    share = size / p["raw_bytes"] if p["raw_bytes"] else 0.0
    cards = [
        ("documents", units.count(kept), f"of {units.count(p['documents'])} read"),
        ("text", units.size(size), f"{share:.1%} of {units.size(p['raw_bytes'])}"),
    ]
    counts = p.get("facts", {}).get("language", {})
    languages = sorted(filter(None, counts), key=lambda name: -counts[name][1])
    if languages:
        cards.append(("languages", str(len(languages)), ", ".join(languages[:6])))
    if t.get("tokens"):
        count = sum(t["tokens"].values())
        rate = size / count if count else 0.0
        cards.append(("tokens", units.count(count), f"{rate:.2f} bytes each"))
    cards.append(("prepared in", units.duration(p.get("seconds", 0.0)), ""))
    source = p["source"]
    told = source.get("path", "")
    return (
        f"<h1>{page.escape(name)}</h1>"
        f"<p>Data card. Source: {page.escape(source['name'])}"
        + (f", <code>{page.escape(str(told))}</code>" if told else "")
        + f"</p>{page.cards(cards)}"
    )


def _flow(p: Mapping[str, Any]) -> str:
    stages = p["stages"]
    if not stages:
        return ""
    first = stages[0]
    levels = [("read", first["bytes_in"], _amount(first, "in"))]
    losses = []
    for stage in stages:
        levels.append((stage["name"], stage["bytes_out"], _amount(stage, "out")))
        losses.append(_loss(stage))
    losses.append("")
    both = zip(levels, losses, strict=True)
    drawn = [(name, size, said, lost) for (name, size, said), lost in both]
    return page.panel(svg.flow(drawn, title="bytes of text after each stage"))


def _amount(stage: Mapping[str, Any], end: str) -> str:
    count, size = stage[f"documents_{end}"], stage[f"bytes_{end}"]
    return f"{count:,} · {units.size(size)}"


def _loss(stage: Mapping[str, Any]) -> str:
    """`−12.3 %, 40 documents: fewer than 50 words and 2 more reasons`."""
    gone = stage["bytes_in"] - stage["bytes_out"]
    if gone <= 0 and not stage["dropped"]:
        return ""
    share = gone / stage["bytes_in"] if stage["bytes_in"] else 0.0
    ranked = sorted(stage["dropped"].items(), key=lambda item: -item[1]["documents"])
    count = sum(entry["documents"] for _, entry in ranked)
    if not ranked:
        return f"−{share:.1%}, parts of texts" if share >= 0.0005 else ""
    told = f"−{share:.1%}"
    reason = ranked[0][0][:40] + ("…" if len(ranked[0][0]) > 40 else "")
    more = f" +{len(ranked) - 1}" if len(ranked) > 1 else ""
    return f"{told}, {count:,}: {reason}{more}"


def _stages(p: Mapping[str, Any]) -> str:
    rows = "".join(corpus_sections.stage(stage) for stage in p["stages"])
    return page.panel(f'<div class="rows">{rows}</div>') if rows else ""


def _kinds(p: Mapping[str, Any]) -> str:
    """Documents and bytes of each source and language after each stage."""
    kinds: dict[tuple[str, str], int] = {}
    for stage in p["stages"]:
        for source, languages in stage["kept"].items():
            for language, (_, size) in languages.items():
                kinds[source, language] = max(size, kinds.get((source, language), 0))
    ranked = sorted(kinds, key=lambda kind: (-kinds[kind], kind))[:_ROWS]
    if not ranked:
        return ""
    head = ("source, language",
            *(stage["name"].replace("_", "\n") for stage in p["stages"]))  # fmt: skip
    rows = []
    for source, language in ranked:
        cells = [f"{source}, {language or 'not known'}"]
        for stage in p["stages"]:
            count, size = stage["kept"].get(source, {}).get(language, (0, 0))
            cells.append(f"{count:,}\n{units.size(size)}" if count else "0")
        rows.append(cells)
    return page.panel(page.table(head, rows) + _more(kinds))


def _more(all_of: Sized) -> str:
    """What a table does not show."""
    rest = len(all_of) - _ROWS
    return f'<p class="soft">and {rest} more</p>' if rest > 0 else ""


def _splits(p: Mapping[str, Any], t: Mapping[str, Any]) -> str:
    tokens, rates = t.get("tokens", {}), t.get("bytes_per_token", {})
    rows = [
        (
            name,
            f"{split['documents']:,}",
            f"{split['group_count']:,}",
            units.size(split["bytes"]),
            f"{tokens[name]:,}" if name in tokens else "",
            f"{rates[name]:.3f}" if name in rates else "",
        )
        for name, split in p["splits"].items()
    ]
    head = ("split", "documents", "groups", "text", "tokens", "bytes per token")
    told = page.panel(page.table(head, rows))
    kinds = [
        (source, language, *counts)
        for source, languages in t.get("kinds", {}).items()
        for language, counts in languages.items()
    ]
    rows = [
        (
            f"{source}, {language or 'not known'}",
            f"{documents:,}",
            units.size(size),
            f"{count:,}",
            f"{size / max(1, count):.3f}",
        )
        for source, language, documents, size, count in sorted(
            kinds, key=lambda kind: (-kind[-1], kind)
        )
    ]
    head = ("source, language", "documents", "text", "tokens", "bytes per token")
    if not rows:
        return told
    return told + page.panel(page.table(head, rows[:_ROWS]) + _more(rows))


def _copies(p: Mapping[str, Any]) -> str:
    panels = []
    for stage in p["stages"]:
        if not stage.get("clusters") and not stage.get("removed"):
            continue
        removed = "; ".join(f"{n:,} × {why}" for why, n in stage["removed"].items())
        head = f"<h3>{page.escape(stage['name'])}</h3>"
        facts = page.facts(
            (
                ("sets of copies", f"{stage.get('clusters', 0):,}"),
                ("parts removed", removed or None),
            )
        )
        rows = [(f"{id[:60]}: {text[:60]}", f"{size:,}") for size, id, text in
                stage.get("largest", [])]  # fmt: skip
        table = page.table(("largest sets, by their first", "copies"), rows)
        panels.append(page.panel(head + facts + (table if rows else "")))
    return "".join(panels)


def _facts(p: Mapping[str, Any]) -> str:
    """What stands in meta: sums of counts, and how many documents say what."""
    facts, panels = p.get("facts", {}), []
    for name, found in p.get("sums", {}).items():
        rows = [(kind, f"{n:,}") for kind, n in sorted(found.items())]
        panels.append(page.panel(page.table((f"{name}: found", "times"), rows)))
    for name, found in facts.items():
        ranked = sorted(found.items(), key=lambda item: (-item[1][1], item[0]))
        if name == "timestamp":
            ranked = sorted(found.items(), reverse=True)
        rows = [
            (value or "not known", f"{count:,}", units.size(size))
            for value, (count, size) in ranked[:_ROWS]
        ]
        table = page.table((name, "documents", "text"), rows)
        panels.append(page.panel(table + _more(ranked)))
    return "".join(panels)


def _contamination(p: Mapping[str, Any]) -> str:
    panels = []
    for stage in (s for s in p["stages"] if s["name"] == "decontaminate"):
        found = sorted(
            stage["scores"].items(), key=lambda x: (-x[1]["most"], -x[1]["documents"])
        )
        rows = [
            (item, f"{about['documents']:,}", f"{about['most']:.0f}")
            for item, about in found[:_ROWS]
        ]
        about = stage.get("about", {})
        looked, held = about.get("items", 0), stage["scored"]
        said = f"{looked:,} items were looked for, {held:,} found"
        if about.get("too short"):
            said += f"; {about['too short']:,} are too short to be looked for"
        head = ("item of an examination", "documents that hold it", "most runs in one")
        table = page.table(head, rows) if rows else ""
        panels.append(page.panel(f"<p>{said}.</p>{table}"))
    return "".join(panels)


def _scores(p: Mapping[str, Any]) -> str:
    panels = []
    for stage in p["stages"]:
        if not stage["scores"] or stage["name"] == "decontaminate":
            continue
        rows = [
            (
                name,
                f"{about['documents']:,}",
                *(f"{about[at]:.3g}" for at in ("10%", "50%", "90%", "most")),
            )
            for name, about in list(stage["scores"].items())[:_ROWS]
        ]
        head = (stage["name"], "texts", "10 %", "50 %", "90 %", "most")
        panels.append(page.details(stage["name"], page.table(head, rows)))
    return page.panel("".join(panels)) if panels else ""


def _skipped(p: Mapping[str, Any]) -> str:
    html = corpus_sections.reasons(p["skipped"], "Examples of what was skipped")
    return page.panel(html) if html else ""


def _settings(p: Mapping[str, Any], t: Mapping[str, Any]) -> str:
    rows = [(name, value) for name, value in p.get("hashes", {}).items()]
    if p.get("files"):
        rows.append(("names and sizes of the files read", p["files"]))
    if "fingerprint" in t:
        rows.append(("tokenizer", t["fingerprint"]))
    hashes = page.table(("hash", ""), rows) if rows else ""
    if t.get("hashes"):
        hashed = page.table(("file in tokens/", "SHA-256"), list(t["hashes"].items()))
        hashes += page.details("Files of tokens", hashed)
    used = {"data": p.get("settings", {}), "tokenizer": t.get("settings", {})}
    settings = json.dumps(used, indent=1, ensure_ascii=False)
    return page.panel(
        hashes + page.details("Settings", f"<pre>{page.escape(settings)}</pre>")
    )


def _read(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
