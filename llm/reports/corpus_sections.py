"""The parts of a report about text: what became of the corpus, and the tokenizer."""

from typing import Any

from llm import units
from llm.reports import page, svg


def data(p: dict[str, Any]) -> str:
    """The stages of prepare_data.json, its splits and where the text came from."""
    rows = "".join(stage(one) for one in p.get("stages", []))
    splits = p.get("splits", {})
    total = sum(s.get("bytes", 0) for s in splits.values()) or 1
    parts = [
        (name, s.get("bytes", 0) / total, f"c{i % 4 + 1}")
        for i, (name, s) in enumerate(splits.items())
    ]
    table = page.table(
        ("split", "documents", "size", "groups"),
        [
            (
                name,
                f"{s.get('documents', 0):,}",
                units.size(s.get("bytes", 0)),
                f"{s.get('group_count', len(s.get('groups', []))):,}",
            )
            for name, s in splits.items()
        ],
    )
    groups = "".join(
        page.details(
            f"Groups in {name} ({s.get('group_count', len(s['groups'])):,})",
            f'<div class="words">{page.escape(", ".join(map(str, s["groups"])))}</div>',
        )
        for name, s in splits.items()
        if s.get("groups")
    )
    source = p.get("source")
    if isinstance(source, dict):
        source = source.get("name")
    skipped = p.get("skipped", {})
    summary = page.facts(
        (
            ("source", source),
            ("documents read", _whole(p.get("documents"))),
            ("size", units.size(p["raw_bytes"]) if "raw_bytes" in p else None),
            ("time", _time(p)),
        )
    ) + reasons(skipped, "Examples of what was skipped while reading")
    legend = page.legend((f"{name} {share:.1%}", css) for name, share, css in parts)
    bar = svg.bar(parts, title="shares of the splits")
    split = f"{legend}{bar}{table}{groups}"
    return (
        page.panel(summary)
        + page.panel(f'<div class="rows">{rows}</div>' if rows else "")
        + page.panel(split if splits else "")
    )


def stage(about: dict[str, Any]) -> str:
    """What went in and came out of a stage, and why the rest did not."""
    came, left = about.get("documents_in", 0), about.get("documents_out", 0)
    size_in, size_out = about.get("bytes_in", 0), about.get("bytes_out", 0)
    kept = size_out / size_in if size_in else 1.0
    why = reasons(about.get("dropped", {}), "Examples of what was dropped")
    shares = [("kept", kept, "c1"), ("dropped", max(1 - kept, 0), "lost")]
    return (
        f'<div><div class="row-head"><b>{page.escape(about.get("name", "?"))}</b>'
        f"<span>{came:,} → {left:,} documents</span>"
        f"<span>{units.size(size_in)} → {units.size(size_out)}</span></div>"
        f"{svg.bar(shares, title='bytes kept')}"
        f"{why}</div>"
    )


def reasons(dropped: dict[str, dict[str, Any]], title: str) -> str:
    """Badges of why documents went, how many, and a folded list of some of them."""
    badges = "".join(
        page.badge(
            f"{reason.replace('_', ' ')}: {_documents(found.get('documents', 0))}"
            + (f", {units.size(found['bytes'])}" if "bytes" in found else ""),
            "warn",
        )
        for reason, found in dropped.items()
    )
    examples = "".join(
        f"<h3>{page.escape(reason.replace('_', ' '))}</h3>"
        + "".join(_example(example) for example in found["examples"])
        for reason, found in dropped.items()
        if found.get("examples")
    )
    folded = page.details(title, examples) if examples else ""
    return (f'<div class="reasons">{badges}</div>' if badges else "") + folded


def _example(example: str | list[str]) -> str:
    """An id, or an id and the beginning of the text."""
    id, *beginning = [example] if isinstance(example, str) else example
    told = f" <q>{page.escape(beginning[0])}</q>" if beginning else ""
    return f'<div class="words"><b>{page.escape(id)}</b>{told}</div>'


def tokenizer(t: dict[str, Any]) -> str:
    """The vocabulary of train_tokenizer.json and how far it compresses each split."""
    rates, tokens = t.get("bytes_per_token", {}), t.get("tokens", {})
    summary = page.facts(
        (
            ("vocabulary", _whole(t.get("vocab_size"))),
            ("unused pieces", _whole(t.get("unused_pieces"))),
            ("unknown tokens", _unknown(t.get("unknown", {}))),
            ("fingerprint", str(t["fingerprint"])[:12] if "fingerprint" in t else None),
            ("time", _time(t)),
        )
    )
    table = page.table(
        ("split", "tokens", "bytes per token"),
        [
            (
                name,
                f"{tokens[name]:,}" if name in tokens else "",
                f"{rates[name]:.3f}" if name in rates else "",
            )
            for name in {**rates, **tokens}
        ],
    )
    worst = page.table(
        ("word that costs most", "pieces", "uses"),
        [(w["word"], str(w["pieces"]), f"{w['uses']:,}") for w in t["worst_words"]],
    ) if t.get("worst_words") else ""  # fmt: skip
    languages = page.table(
        ("language", "bytes per token"),
        [(name, f"{rate:.3f}") for name, rate in t["languages"].items()],
    ) if t.get("languages") else ""  # fmt: skip
    examples = "".join(
        page.pieces(example["pieces"]) for example in t.get("examples", [])
    )
    examples = f"<h3>How it cuts text</h3>{examples}" if examples else ""
    return (
        page.panel(summary)
        + page.panel(table if rates or tokens else "")
        + page.panel(languages)
        + page.panel(examples)
        + page.panel(page.details("Words that are cut most", worst) if worst else "")
    )


def _documents(number: int) -> str:
    return f"{number:,} document{'' if number == 1 else 's'}"


def _whole(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _unknown(shares: dict[str, float]) -> str | None:
    """Of held-out text; nothing where there are none."""
    most = max(shares.values(), default=0.0)
    return f"up to {most:.2%}" if most else None


def _time(result: dict[str, Any]) -> str | None:
    return units.duration(result["seconds"]) if "seconds" in result else None
