"""A ladder of small models, the law they follow, the next rung: scaling.json, .html.

The grid of `c.sweep.space` over `c.trial` is trained as a sweep trains it; it varies
the size of the model and the tokens it sees, and every run is one of its own, with a
schedule that ends where its tokens do.
"""

import pathlib

from etils import epath
from ml_collections import ConfigDict

from llm import files, run_dir
from llm.errors import InputError
from llm.reports import scaling_page
from llm.sweeps import scaling_law, search, trials

_SHARE = 0.8  # of intervals

SECTIONS_OF = ("sweep",)


def run(c: ConfigDict, workdir: str) -> None:
    """Trains what is missing of the ladder, fits the law and writes its page."""
    axes = search.axes(c.sweep.space, c.trial)
    grid = search.grid(axes, c.sweep.points)
    if len(grid) < scaling_law.LEAST:
        raise InputError(
            got=f"{len(grid)} runs in sweep.space",
            want=f"{scaling_law.LEAST} or more, of several sizes and lengths",
        )
    own = c.to_dict()
    own["sweep"] = {**own["sweep"], "processes": 0}  # may change
    run_dir.claim(workdir, own, device="", devices=0)
    root = pathlib.Path(workdir)
    known = trials.run(
        root, c.trial, lambda held: grid[len(held)] if len(held) < len(grid) else None,
        trials.Wanted("validation_loss"), processes=c.sweep.processes, total=len(grid),
    )  # fmt: skip
    runs = [
        scaling_law.Run(t.parameters, t.tokens, t.value)
        for t in known
        if t.status == "done"
    ]
    failed = [t for t in known if t.status != "done"]
    if failed:
        print(f"{len(failed)} failed, the first: {failed[0].reason}")
    law = scaling_law.fit(runs)
    result = {
        "law": law._asdict(),
        "doubts": scaling_law.doubts(law),
        "runs": [r._asdict() for r in runs],
        "held_out": _held_out(runs),
        "next": _next(runs, law),
    }
    run_dir.write(workdir, "scaling.json", result)
    page = root / "scaling.html"
    html = scaling_page.write(root.resolve().name, runs, law, result)
    files.write_text(epath.Path(page), html)
    print(
        f"L(N, D) = {law.E:.3f} + {law.A:.4g} / N^{law.alpha:.3f} + {law.B:.4g} / "
        f"D^{law.beta:.3f}"
    )
    if result["doubts"]:
        print(result["doubts"])
    for h in result["held_out"]:
        low, high = h["interval"]
        print(
            f"held out: {h['parameters']:,} parameters, {h['tokens']:,} tokens: "
            f"{h['loss']:.4f}, predicted {h['predicted']:.4f} ({low:.4f} to {high:.4f})"
        )
    if result["held_out"] and (doubts := result["held_out"][0]["doubts"]):
        print(f"of the law that predicts these: {doubts}")
    ahead = result["next"]
    low, high = ahead["interval"]
    print(
        f"next rung: {ahead['parameters']:,} parameters, {ahead['tokens']:,} tokens: "
        f"{ahead['loss']:.4f} ({low:.4f} to {high:.4f}, {_SHARE:.0%})"
    )
    print(f"page: {page}")


def _held_out(runs: list[scaling_law.Run]) -> list[dict]:
    """The largest model's runs, predicted from the others; [] where these are few."""
    largest = max(r.parameters for r in runs)
    smaller = [r for r in runs if r.parameters < largest]
    try:
        law = scaling_law.fit(smaller)
    except InputError:
        return []
    doubts = scaling_law.doubts(law)
    return [
        {
            **r._asdict(),
            **_predicted(smaller, law, r.parameters, r.tokens),
            "doubts": doubts,
        }
        for r in sorted(runs)
        if r.parameters == largest
    ]


def _next(runs: list[scaling_law.Run], law: scaling_law.Law) -> dict:
    """A rung as much above the largest as that is above the one below it."""
    sizes = sorted({r.parameters for r in runs})
    spans = sorted({r.tokens for r in runs})
    size = round(sizes[-1] ** 2 / sizes[-2])
    tokens = round(spans[-1] ** 2 / spans[-2])
    found = _predicted(runs, law, size, tokens)
    return {"parameters": size, "tokens": tokens, "loss": found["predicted"],
            "interval": found["interval"]}  # fmt: skip


def _predicted(runs, law, parameters, tokens) -> dict:
    low, high = scaling_law.interval(runs, law, parameters, tokens, share=_SHARE)
    return {"predicted": law.loss(parameters, tokens), "interval": [low, high]}
