"""The parts of a report about text: what became of the corpus, and the tokenizer."""

from typing import Any

from llm import page, plots, units


def data(p: dict[str, Any]) -> str:
    """The stages of prepare_data.json, its splits and where the text came from."""
    rows = "".join(_stage(stage) for stage in p.get("stages", []))
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
                f"{len(s.get('groups', [])):,}",
            )
            for name, s in splits.items()
        ],
    )
    groups = "".join(
        page.details(
            f"Groups in {name} ({len(s['groups']):,})",
            f'<div class="words">{page.escape(", ".join(map(str, s["groups"])))}</div>',
        )
        for name, s in splits.items()
        if s.get("groups")
    )
    source = p.get("source")
    if isinstance(source, dict):
        source = source.get("name")
    skipped = p.get("skipped")
    skipped = len(skipped) if isinstance(skipped, (list, dict)) else skipped
    summary = page.facts(
        (
            ("source", source),
            ("files skipped", f"{skipped:,}" if skipped else None),
            ("time", _time(p)),
        )
    )
    legend = page.legend((f"{name} {share:.1%}", css) for name, share, css in parts)
    bar = plots.bar(parts, title="shares of the splits")
    split = f"{legend}{bar}{table}{groups}"
    return (
        page.panel(summary)
        + page.panel(f'<div class="rows">{rows}</div>' if rows else "")
        + page.panel(split if splits else "")
    )


def _stage(stage: dict[str, Any]) -> str:
    """What went in and came out of a stage, and why the rest did not."""
    came, left = stage.get("documents_in", 0), stage.get("documents_out", 0)
    size_in, size_out = stage.get("bytes_in", 0), stage.get("bytes_out", 0)
    kept = size_out / size_in if size_in else 1.0
    dropped = stage.get("dropped", {})
    badges = "".join(
        page.badge(
            f"{reason.replace('_', ' ')}: {d.get('documents', 0):,} documents, "
            f"{units.size(d.get('bytes', 0))}",
            "warn",
        )
        for reason, d in dropped.items()
    )
    examples = "".join(
        f"<h3>{page.escape(reason.replace('_', ' '))}</h3>"
        f'<div class="words">{page.escape(", ".join(map(str, d["examples"])))}</div>'
        for reason, d in dropped.items()
        if d.get("examples")
    )
    shares = [("kept", kept, "c1"), ("dropped", max(1 - kept, 0), "lost")]
    return (
        f'<div><div class="row-head"><b>{page.escape(stage.get("name", "?"))}</b>'
        f"<span>{came:,} → {left:,} documents</span>"
        f"<span>{units.size(size_in)} → {units.size(size_out)}</span></div>"
        f"{plots.bar(shares, title='bytes kept')}"
        f"{f'<div class=reasons>{badges}</div>' if badges else ''}"
        f"{page.details('Examples of what was dropped', examples) if examples else ''}"
        "</div>"
    )


def tokenizer(t: dict[str, Any]) -> str:
    """The vocabulary of train_tokenizer.json and how far it compresses each split."""
    rates, tokens = t.get("bytes_per_token", {}), t.get("tokens", {})
    summary = page.facts(
        (
            ("vocabulary", _whole(t.get("vocab_size"))),
            ("unused pieces", _whole(t.get("unused_pieces"))),
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
    return page.panel(summary) + page.panel(table if rates or tokens else "")


def _whole(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _time(result: dict[str, Any]) -> str | None:
    return units.duration(result["seconds"]) if "seconds" in result else None
