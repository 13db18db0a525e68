"""A run whose learning rate grows until it learns no more: lr_range.json and .html.

Prepares the data as a pipeline does, trains with `schedule.name = "range"`, and reads
the losses. That the run diverges at its end is part of the test.
"""

import contextlib
import pathlib

from etils import epath
from ml_collections import ConfigDict

from llm import files, registry, run_dir
from llm.errors import Diverged, InputError
from llm.reports import lr_curve_page
from llm.sweeps import lr_curve
from llm.training import metric_writer

SECTIONS_OF = ("train",)


def run(c: ConfigDict, workdir: str) -> None:
    """Trains, and says which learning rates the losses speak for."""
    if c.schedule.name != "range" or c.train.log_every != 1:
        raise InputError(
            got=f"schedule.name {c.schedule.name!r}, train.log_every "
            f"{c.train.log_every}",
            want="range and 1",
            do="begin with configs/lr_range.py",
        )
    root = pathlib.Path(workdir)
    stages = ("prepare_data", "train_tokenizer", "train")
    for stage in stages:
        registry.module("workloads", stage).check(c)
    for stage in stages:
        if (root / "train.json").exists():
            break
        with contextlib.suppress(Diverged):  # it said so
            registry.build("workloads", stage)(c, workdir)
    records = metric_writer.read(root)
    rates = [r["learning_rate"] for r in records]
    losses = [float(r["loss"]) for r in records]
    found = lr_curve.find(rates, losses)
    name = "muon_learning_rate" if c.optimizer.name == "muon" else "learning_rate"
    result = {
        "field": f"optimizer.{name}",
        "suggested": found.suggested if found else None,
        **(found._asdict() if found else {}),
        "rates": [rates[0], rates[-1]],
        "steps": len(records),
    }
    run_dir.write(workdir, "lr_range.json", result)
    page = root / "lr_range.html"
    html = lr_curve_page.html(root.resolve().name, rates, losses, found)
    files.write_text(epath.Path(page), html)
    if found is None:
        print(
            f"no rate from {rates[0]:.2g} to {rates[-1]:.2g} lets the loss fall; look "
            f"at {page}"
        )
        return
    limit = f", too large from {found.limit:.2g}" if found.limit else ""
    print(
        f"optimizer.{name}: falls fastest at {found.steepest:.2g}, lowest at "
        f"{found.lowest:.2g}{limit}; as a peak try {found.suggested:.2g}"
    )
    print(f"page: {page}")
