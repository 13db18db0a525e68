"""The report in a real browser: figures drawn, nothing wider than a phone."""

import copy
import html
import json
import re
import subprocess

import chromium
import example_run
import numpy as np
import pytest

from llm.reports import interpret_page, lifecycle_page, run_report

pytestmark = chromium.NEEDED

# A browser window has a least width, a frame has none: the page is measured in one.
FRAME = """<!doctype html><body style="margin:0">
<iframe width="{width}" height="900" style="border:0" srcdoc="{page}"></iframe>
<pre id="measured"></pre><script>
window.onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const shown = x => x.getClientRects().length > 0;
  const box = x => x.getBoundingClientRect();
  const inner = [...page.querySelectorAll("main *, header *")].filter(x =>
    shown(x) && !x.closest(".scroll, pre, svg"));
  const drawn = x => {{ const b = x.getBBox(); return b.width > 50 && b.height > 1; }};
  document.getElementById("measured").textContent = JSON.stringify({{
    scroll: page.documentElement.scrollWidth,
    wide: inner.filter(x => box(x).right > {width} + 0.5).map(x => x.outerHTML),
    figures: [...page.querySelectorAll("svg[role=img]")].filter(shown)
      .map(x => [x.getAttribute("aria-label"), drawn(x), box(x).width]),
    text: Math.min(...[...page.querySelectorAll("svg text")].filter(shown)
      .map(x => box(x).height).filter(x => x > 0)),
    sections: [...page.querySelectorAll("section")].filter(x => box(x).height > 40)
      .map(x => x.querySelector("h2").textContent),
    pictures: [...page.querySelectorAll("img")].map(x => x.naturalWidth),
    links: [...page.querySelectorAll("nav a")]
      .every(x => page.querySelector(x.getAttribute("href"))),
  }});
}};
</script>"""


def measure(workdir, width, text=None):
    page = html.escape(text or run_report.write(workdir).read_text())
    frame = workdir / "frame.html"
    frame.write_text(FRAME.format(width=width, page=page))
    profile = f"--user-data-dir={workdir / 'profile'}"
    done = subprocess.run(
        [chromium.PATH, *chromium.FLAGS, profile, "--dump-dom",
         "--window-size=1400,1000", "--virtual-time-budget=5000", frame.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="measured">(.+?)</pre>', done.stdout, re.DOTALL)
    return json.loads(html.unescape(found.group(1)))


@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_chromium(tmp_path, width):
    found = measure(example_run.write(tmp_path / "run"), width)
    assert found["wide"] == []
    assert found["scroll"] <= width
    plots = [
        "Loss, nats a token (log scale)", "Learning rate", "Gradient norm (log scale)",
        "Tokens per second", "Model FLOPs utilisation",
    ]  # fmt: skip
    labels = [label for label, _, _ in found["figures"]]
    assert [label for label in plots if labels.count(label) != 1] == []
    assert labels.count("bytes kept") == 4
    assert all(drawn and wide > 250 for _, drawn, wide in found["figures"])
    # A label on a phone is as large as on a desk.
    assert found["text"] > 9
    assert found["sections"] == [
        "Learning", "Events", "Evaluation", "Samples", "Speed", "Data", "Tokenizer",
        "Config", "Environment",
    ]  # fmt: skip
    assert found["links"]


def test_long_words_do_not_widen_a_phone(tmp_path):
    workdir = example_run.write(tmp_path / "run")
    word = "x" * 400
    evaluate = json.loads((workdir / "evaluate.json").read_text())
    evaluate["syntax_examples"] = [
        {"prompt": word, "completion": word, "valid": False, "reason": word}
    ]
    (workdir / "evaluate.json").write_text(json.dumps(evaluate))
    train = {"events": [{"step": 1, "event": "warn", "message": word}]}
    (workdir / "train.json").write_text(json.dumps(train))
    data = copy.deepcopy(example_run.RESULTS["prepare_data"])
    data["stages"][0]["dropped"] = {word: {"documents": 1, "bytes": 1, "examples": []}}
    (workdir / "prepare_data.json").write_text(json.dumps(data))
    config = {"config": {"train": {"path": word, word: 1}}, "git_commit": word}
    (workdir / "config.json").write_text(json.dumps(config))
    found = measure(workdir, 390)
    assert found["wide"] == []
    assert found["scroll"] <= 390


@pytest.mark.parametrize("width", [390, 1280])
def test_a_look_inside(tmp_path, width):
    tokens = ["def", " f", "\x00", "\n"]
    result = {
        "model_dir": "run", "step": 1, "read": [], "tokens": tokens,
        "lens": [[[[token, 0.9]] for token in tokens]] * 3,
        "neighbours": [{"word": "a", "near": [["b", 0.5]]}], "analogies": [],
    }  # fmt: skip
    shares = np.tril(np.ones((2, 3, 4, 4)))
    text = interpret_page.write(result, {"attention": shares})
    found = measure(tmp_path, width, text)
    assert found["sections"] == ["Logit lens", "Attention", "Near words"]
    assert found["pictures"] == [4] * 6 and found["scroll"] <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_a_life(tmp_path, width):
    run = example_run.write(tmp_path / "one")
    told = {"answers": [{"what": "x" * 99, "answer": "def f():\n    pass"}]}
    (run / "selftest.json").write_text(json.dumps(told))
    steps = [
        lifecycle_page.Step("one", "pipeline", run, 3.0),
        lifecycle_page.Step("two", "serve", tmp_path / "two", None),
    ]
    text = lifecycle_page.write(tmp_path / "lifecycle.html", steps)
    found = measure(tmp_path, width, text)
    assert found["sections"] == ["Steps", "One"] and found["links"]
    assert found["wide"] == [] and found["scroll"] <= width
