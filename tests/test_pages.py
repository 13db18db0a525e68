"""All pages: whatever texts and names hold, they are text, and nothing is fetched."""

import json
import re

import example_run
import numpy as np
import pytest
from page_parser import Page

from llm.reports import (
    comparison,
    interpret_page,
    lifecycle_page,
    lr_curve_page,
    page,
    run_report,
    scaling_page,
    sweep_page,
)
from llm.sweeps import lr_curve
from llm.sweeps.scaling_law import Law, Run
from llm.sweeps.search import Axis
from llm.sweeps.trials import Trial, Wanted

EVIL = """'"><script>alert("a & b")</script><b onload=x \x01"""
SHOWN = EVIL.replace("\x01", "\u2401")
# What pages are made of; `onload` is not among them.
ATTRIBUTES = {
    "alt", "aria-label", "charset", "class", "content", "cx", "cy", "d", "height",
    "href", "id", "lang", "name", "points", "preserveaspectratio", "r", "role", "src",
    "style", "text-anchor", "title", "viewbox", "width", "x", "x1", "x2", "y", "y1",
    "y2",
}  # fmt: skip


def evil(value):
    """The same data with all of its texts as bad as can be."""
    if isinstance(value, dict):
        return {key: evil(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [evil(inner) for inner in value]
    return value + EVIL if isinstance(value, str) else value


def run(folder):
    workdir = example_run.write(folder / "run")
    for name, result in example_run.RESULTS.items():
        (workdir / f"{name}.json").write_text(json.dumps(evil(result)))
    return run_report.write(workdir).read_text("utf-8")


def compared(folder):
    def figure(value):
        return {"value": value, "interval": [value - 1, value + 1]}

    shares = {"one": figure(0.1), "other": figure(0.2), "difference": figure(2.0)}
    example = {"better": 1, "input": EVIL, "target": EVIL, "outputs": [EVIL, ""]}
    task = {"items": 3, "only_one": 1, "only_other": 0}
    task |= {"figures": {"accuracy, " + EVIL: shares}, "examples": [example]}
    return comparison.html({"runs": ["a" + EVIL, "b" + EVIL], "tasks": {EVIL: task}})


def drifted(folder):
    finding = {
        "name": EVIL, "level": "drift", "psi": 0.3, "threshold": 0.2, "ks": None,
        "p_value": 1e-9, "reference": {EVIL: 3}, "window": {EVIL: 4},
    }  # fmt: skip
    return page.render(
        "drift.html.j2", drift=[EVIL], reference_records=9, window_records=8,
        findings=[finding], not_compared=[EVIL],
    )  # fmt: skip


def inside(folder):
    result = {
        "model_dir": EVIL, "step": 1, "read": [EVIL], "tokens": [EVIL],
        "lens": [[[[EVIL, 0.9]]]], "analogies": [{"analogy": EVIL, "near": []}],
        "neighbours": [{"word": EVIL, "near": [[EVIL, 0.5]]}],
    }  # fmt: skip
    return interpret_page.write(result, {EVIL: np.ones((1, 1, 1, 1))})


def life(folder):
    step = folder / EVIL.replace("/", "")
    step.mkdir()
    (step / "report.html").write_text("")
    answers = {"answers": [{"what": EVIL, "answer": EVIL}], "objective": {EVIL: 1.0}}
    (step / "selftest.json").write_text(json.dumps(answers))
    before = {"bits": 8, "perplexity": 3.0, "tokens_per_s": 2.0}
    after = {"method": {"name": EVIL}, "before": before, "after": before}
    (step / "compress.json").write_text(json.dumps(after))
    steps = [lifecycle_page.Step(EVIL, EVIL, step, 1.0)]
    return lifecycle_page.write(folder / "lifecycle.html", steps)


def rates(folder):
    x = [10.0 ** (k / 20 - 5) for k in range(100)]
    y = [3 - k / 50 for k in range(100)]
    return lr_curve_page.html(EVIL, x, y, lr_curve.find(x, y))


def ladder(folder):
    law = Law(E=1.4, A=60.0, B=120.0, alpha=0.3, beta=0.33)
    runs = [Run(n, d, law.loss(n, d)) for n in (1e5, 1e6) for d in (1e6, 3e6, 1e7)]
    ahead = {"loss": 2.0, "interval": (1.9, 2.1)}
    last = {"parameters": 1e6, "tokens": 1e6, "loss": 2.5, "predicted": 2.4}
    last |= {"interval": (2.3, 2.6), "doubts": EVIL}
    return scaling_page.write(EVIL, runs, law, {"next": ahead, "held_out": [last]})


def sweep(folder):
    trials = [
        Trial(n, {EVIL: n + 1, "b": EVIL}, "done", 2.0 + n, 10, reason=EVIL)
        for n in range(3)
    ]
    axes = (
        Axis((EVIL,), "linear", (1, 3), True),
        Axis(("b",), "values", ((EVIL,),), False),
    )
    return sweep_page.write(folder / EVIL.replace("/", ""), trials, axes, Wanted(EVIL))


@pytest.mark.parametrize(
    "make", [run, compared, drifted, inside, life, rates, ladder, sweep]
)
def test_texts_are_text(make, tmp_path, monkeypatch):
    if make is sweep:
        monkeypatch.setattr(sweep_page.metric_writer, "read", lambda folder: [])
    text = make(tmp_path)
    found = Page(text)
    assert found.attributes <= ATTRIBUTES
    assert "script" not in found.tags and text.count("<script") == 0
    assert SHOWN in found.text and not re.search(r"[\0-\x08\x0b-\x1f]", text)
    local = ("#", "data:image/png;base64,")
    assert all(a.startswith(local) or ":" not in a for a in found.addresses)
    assert not re.search(r"https?://|@import|url\(", text)


def test_what_a_template_lacks_is_an_error():
    with pytest.raises(Exception, match="'drift' is undefined"):
        page.render("drift.html.j2")
