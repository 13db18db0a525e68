"""The page of a ladder: what was trained, the law, and what it predicts."""

from collections.abc import Sequence
from typing import Any

from llm import units
from llm.reports import page, svg
from llm.sweeps import scaling_law
from llm.sweeps.scaling_law import Law, Run

_COLOURS = 4
_NONE = 0.05  # nats; below it the runs do not tell E from nothing
_ENTROPY = ("nats a token, E", "the runs do not tell it from 0")
_BUDGETS = (1, 10, 100, 1000)  # times the largest run's FLOPs


def write(title: str, runs: Sequence[Run], law: Law, result: dict[str, Any]) -> str:
    """The page as HTML.

    Args:
      result: what scaling.json holds.
    """
    ahead, held = result["next"], result["held_out"]
    header = f"<h1>{page.escape(title)}</h1><p>{len(runs)} runs</p>"
    header += _warning(scaling_law.doubts(law))
    header += page.cards(
        [
            ("loss that stays", f"{law.E:.2f}", _ENTROPY[law.E < _NONE]),
            ("with parameters", f"N^-{law.alpha:.2f}", f"A = {law.A:.3g}"),
            ("with tokens", f"D^-{law.beta:.2f}", f"B = {law.B:.3g}"),
            (
                "next rung",
                f"{ahead['loss']:.3f}",
                f"{ahead['interval'][0]:.3f} to {ahead['interval'][1]:.3f}",
            ),
        ]
    )
    sections = [
        ("Runs", page.panel(_plot(runs, law)) + page.panel(_runs(runs, law))),
        *([("Prediction", page.panel(_held_out(held)))] if held else []),
        ("Budgets", page.panel(_budgets(runs, law))),
    ]
    return page.page(title, header, sections)


def _plot(runs, law) -> str:
    sizes = sorted({run.parameters for run in runs})
    shown = sizes[:: max(1, len(sizes) // _COLOURS)][-_COLOURS:]
    series = []
    for colour, size in enumerate(shown, start=1):
        own = sorted((r.tokens, r.loss) for r in runs if r.parameters == size)
        spans = [x for x, _ in own]
        name = f"{units.count(size)} parameters"
        series.append(svg.Series(name, spans, [y for _, y in own], colour, "points"))
        fitted = [law.loss(size, x) for x in spans]
        series.append(svg.Series(f"law, {name}", spans, fitted, colour, "faint"))
    return svg.lines(
        series, title="validation loss; the lines are the law", x_label="tokens",
        x_format=units.count, log_x=True, log_y=False, width=900, height=320,
    )  # fmt: skip


def _runs(runs, law) -> str:
    rows = [
        (units.count(r.parameters), units.count(r.tokens), f"{r.loss:.4f}",
         f"{law.loss(r.parameters, r.tokens):.4f}",
         f"{r.loss / law.loss(r.parameters, r.tokens) - 1:+.2%}")
        for r in sorted(runs)
    ]  # fmt: skip
    return page.table(("parameters", "tokens", "loss", "law", "off by"), rows)


def _held_out(held) -> str:
    rows = [
        (units.count(h["parameters"]), units.count(h["tokens"]), f"{h['loss']:.4f}",
         f"{h['predicted']:.4f}", f"{h['interval'][0]:.4f} to {h['interval'][1]:.4f}",
         "yes" if h["interval"][0] <= h["loss"] <= h["interval"][1] else "no")
        for h in held
    ]  # fmt: skip
    head = ("parameters", "tokens", "loss", "predicted", "80 % interval", "within")
    return (
        "<p>The largest model, as a law fitted to the smaller ones alone predicts it."
        f"</p>{_warning(held[0]['doubts'])}{page.table(head, rows)}"
    )


def _warning(doubts: str) -> str:
    warning = page.badge("warning", "warn")
    return f"<p>{warning} {page.escape(doubts)}</p>" if doubts else ""


def _budgets(runs, law) -> str:
    most = max(6 * r.parameters * r.tokens for r in runs)
    rows = []
    for times in _BUDGETS:
        size = law.parameters(times * most)
        tokens = times * most / 6 / size
        rows.append(
            (units.quantity(times * most, "FLOP"), units.count(size),
             units.count(tokens), f"{law.loss(size, tokens):.3f}")
        )  # fmt: skip
    return (
        "<p>The best use of a budget, by the law; the further from the runs, the less "
        "it is worth.</p>"
        + page.table(("training", "parameters", "tokens", "loss"), rows)
    )
