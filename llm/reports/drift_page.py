"""The page of a comparison of two windows of a server's traffic."""

from typing import Any

from llm.reports import page


def html(made: dict[str, Any]) -> str:
    """The page of a comparison."""
    drifted = [f["name"] for f in made["findings"] if f["level"] == "drift"]
    said = f"drift: {', '.join(drifted)}" if drifted else "no drift"
    header = (
        f"<h1>{page.escape(said)}</h1><p>{made['reference_records']} requests as the "
        f"reference, {made['window_records']} compared with them. PSI over its "
        "threshold is drift, if the test agrees: Kolmogorov-Smirnov of numbers, "
        "chi-squared of names.</p>"
    )
    kinds = {"drift": "bad", "some": "warn", "none": "good"}
    rows, badges = [], []
    for f in made["findings"]:
        badges.append(page.badge(f"{f['name']}: {f['level']}", kinds[f["level"]]))
        size = "" if f["ks"] is None else f"KS {f['ks']:.3f}, "
        ks = f"{size}p {f['p_value']:.2g}"
        rows.append(
            (f["name"], f"{f['psi']:.3f}", f"{f['threshold']:.3f}", ks,
             _shown(f["reference"]), _shown(f["window"]))
        )  # fmt: skip
    head = ("figure", "PSI", "threshold", "test", "reference", "window")
    body = page.table(head, rows) + f'<div class="reasons">{"".join(badges)}</div>'
    if made["not_compared"]:
        left = f"Not in both logs: {', '.join(made['not_compared'])}."
        body += f'<p class="soft">{page.escape(left)}</p>'
    return page.page(said, header, [("Figures", page.panel(body))])


def _shown(part: dict[str, Any]) -> str:
    if "median" in part:
        return f"{part['median']:.4g} ({part['p10']:.4g} to {part['p90']:.4g})"
    return ", ".join(f"{name} {count}" for name, count in part.items())
