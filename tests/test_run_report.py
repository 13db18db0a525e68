"""The report page: what it says, what it leaves out, and what cannot break it."""

import html
import json
import math
import re
import shutil
import xml.etree.ElementTree as ET

import example_run
import pytest
from page_parser import Page

from llm import metrics
from llm.errors import InputError
from llm.reports import page, run_report, svg

HEADINGS = [
    "Learning", "Events", "Evaluation", "Samples", "Speed", "Data", "Tokenizer",
    "Config", "Environment",
]  # fmt: skip


@pytest.fixture
def workdir(tmp_path):
    return example_run.write(tmp_path / "a <run>")


def test_whole_page(workdir):
    text = run_report.write(workdir).read_text()
    found = Page(text)
    assert found.headings == HEADINGS
    for shown in (
        "1.158", "14.31", "57%", "the corpus's own functions98%",  # headline figures
        "4.98M", "4.92M", "0.74 epochs", "7m48s",
        "1.1583", "44.12%",  # evaluation
        "4,305 → 4,121 documents", "table of literals: 131 documents, 5.15 MiB",
        "html/entities.py", "idlelib/<pyshell>.py", "empty: 9 documents",  # data
        "3.301", "9f4c7a3b2e1d", "········raise·ValueError",  # tokenizer
        "Validation loss is 0.51 above the training loss.",
        "muon", "3.93M", "62.1%",
        "does not parse", "temperature 0.8",
        "optax", "0.2.8", "df0e86f3a1b24c5d6e7f8091a2b3c4d5e6f70819",
        "source.max_documents", "muon_learning_rate",
    ):  # fmt: skip
        assert shown in found.text, shown
    # A loss, a learning rate, a gradient norm, a speed and an MFU, each at two widths.
    assert text.count("<svg viewBox") == 2 * 5 and text.count("<polyline") == 2 * 7


def test_self_contained_and_escaped(workdir):
    text = run_report.write(workdir).read_text()
    found = Page(text)
    assert all(address.startswith("#") for address in found.addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    assert "script" not in found.tags and "a <run>" in found.text
    assert "used\u2400 to" in found.text and "\0" not in text
    assert "<script>document.title = 'broken & owned'</script>" in found.text


@pytest.mark.parametrize("missing", [*example_run.RESULTS, "metrics"])
def test_any_file_may_be_absent(workdir, missing):
    for path in workdir.glob(f"{missing}.json*"):
        path.unlink()
    found = Page(run_report.write(workdir).read_text())
    gone = {
        "prepare_data": ["Data"],
        "train_tokenizer": ["Tokenizer"],
        "config": ["Config", "Environment"],
        "train": ["Events"],
        "evaluate": ["Evaluation"],
    }.get(missing, [])
    assert found.headings == [h for h in HEADINGS if h not in gone]


def test_empty_and_partial_runs(tmp_path):
    assert Page(run_report.write(tmp_path).read_text()).headings == []
    # Results with no fields at all, and half a run.
    for name in example_run.RESULTS:
        (tmp_path / f"{name}.json").write_text("{}")
    assert Page(run_report.write(tmp_path).read_text()).headings == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "loss": 2.5, "mfu": null}\n')
    assert Page(run_report.write(tmp_path).read_text()).headings == ["Learning"]


def test_not_finite_losses_are_told(tmp_path):
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(1, 80):
            loss = 2.0 if step < 70 else "NaN"
            file.write(json.dumps({"step": step, "loss": loss}) + "\n")
    text = run_report.write(tmp_path).read_text()
    assert "The loss was nan." in text and "step 70" in text
    drawn = re.findall(r'(?:points|x\d?|y\d?|cx|cy|width|height)="([^"]*)"', text)
    assert drawn and not any("nan" in d or "inf" in d for d in drawn)


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="a directory that exists"):
        run_report.write(tmp_path / "nowhere")
    (tmp_path / "train.json").write_text('{"steps": 3')
    with pytest.raises(InputError, match=r"train.json, which is not JSON"):
        run_report.write(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_writes_over_and_leaves_the_rest(workdir):
    shutil.copytree(workdir, workdir.parent / "copy")
    run_report.write(workdir)
    first = run_report.write(workdir).read_text()
    assert run_report.write(workdir).read_text() == first
    new = {p.name for p in workdir.iterdir()}
    assert new - {p.name for p in (workdir.parent / "copy").iterdir()} == {
        "report.html"
    }


def parsed(figure):
    return ET.fromstring(figure[figure.index("<svg") : figure.index("</figure>")])


def test_plot_maps_values_to_places():
    figure = svg.lines(
        [svg.Series("loss", [0, 50, 100], [1.0, 2.0, 3.0])],
        title="Loss", width=500, height=230, log_y=False,
    )  # fmt: skip
    (line,) = parsed(figure).findall("polyline")
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    xs, ys = zip(*points, strict=True)
    assert xs[0] + xs[2] == pytest.approx(2 * xs[1], abs=0.2) and xs[2] == 486
    assert ys[0] > ys[1] > ys[2] and ys[0] + ys[2] == pytest.approx(2 * ys[1], abs=0.2)
    ticks = {t.text: float(t.get("y")) for t in parsed(figure).findall("text")}
    # The tick of a value stands where the value is drawn.
    assert ticks["2"] - 4 == pytest.approx(ys[1], abs=0.1)
    shown = [
        t.text for t in parsed(figure).iter("text") if "on-hover" in t.get("class")
    ]
    assert shown == ["step 0 · loss 1", "step 50 · loss 2", "step 100 · loss 3"]


def test_log_axis_where_it_reads_better():
    x = list(range(100))
    steep = svg.lines([svg.Series("a", x, [9 / (1 + t) for t in x])], title="a")
    flat = svg.lines([svg.Series("a", x, [2 + t / 100 for t in x])], title="a")
    signed = svg.lines([svg.Series("a", x, [t - 50 for t in x])], title="a")
    assert "log scale" in steep
    assert "log scale" not in flat and "log scale" not in signed
    assert svg.lines([svg.Series("a", [1], [math.nan])], title="a") == ""
    assert "<circle" in svg.lines([svg.Series("a", [1], [2.0])], title="a")


@pytest.mark.parametrize("low", [1e-9, 0.001, 0.73, 2.31, 950.0])
@pytest.mark.parametrize("ratio", [1.0, 1.001, 3.0, 40.0, 1e4, 1e9])
@pytest.mark.parametrize("log", [True, False])
def test_axes_have_a_readable_number_of_ticks(low, ratio, log):
    axis = svg._Axis(low, low * ratio, 5, log=log, pad=0.06)
    assert 2 <= len(axis.ticks) <= 12
    assert all(0 <= axis.share(tick) <= 1 for tick in axis.ticks)
    assert axis.ticks == sorted(set(axis.ticks))


def test_spikes_survive_thinning():
    y = [1.0] * 10_000
    y[5_003] = 9.0
    x, thin = svg._thinned(range(10_000), y, 500)
    assert len(x) <= 1000 and 9.0 in thin and list(x) == sorted(x)


def test_smoothing():
    assert metrics.smoothed([1.0, 2.0, 3.0, 4.0], 1) == [1.0, 2.0, 3.0, 4.0]
    assert metrics.smoothed([0.0, 3.0, 0.0, 3.0, 0.0], 3) == [0.0, 1.0, 2.0, 1.0, 0.0]
    assert metrics.smoothed([1.0, math.nan, 3.0], 3)[1] == 2.0


@pytest.mark.parametrize(
    "text",
    [
        example_run.DEF + example_run.VALID, 'x = "open', "'''", "plain & <prose>",
        "@a\n@b\ndef f(): 0x1_f", "import os\r\n\r\n\tx = \0 $ ?\n\n", "",
    ],
)  # fmt: skip
def test_colouring_loses_no_text(text):
    for cut in {0, len(text) // 3, len(text)}:
        _, pieces = page.coloured(text[:cut], text[cut:])
        assert "".join(piece for _, _, piece in pieces) == text
        assert "".join(piece for _, prompted, piece in pieces if prompted) == text[:cut]


def test_colours_of_python():
    kind, pieces = page.coloured("", "@a\ndef f(x):\n  return len(1) # no")
    colours = {piece: colour for colour, _, piece in pieces}
    assert kind == "code"
    assert colours["def"] == colours["return"] == "keyword"
    assert (colours["f"], colours["(x):\n  "], colours["1"]) == (
        "defined",
        "",
        "number",
    )
    assert (colours["# no"], colours["@a"]) == ("comment", "decorator")
    assert page.coloured("The", " rest")[0] == "prose"


def sample(prompt, completion):
    text = "{% import 'parts.html.j2' as p %}{{ p.sample(prompt, completion) }}"
    template = page._TEMPLATES.from_string(text)
    return template.render(prompt=prompt, completion=completion)


def test_prompt_ends_inside_a_word():
    shown = sample('def f():\n    "ab', 'cd"\n')
    assert '<b><span class="string">&#34;ab</span></b>' in shown
    assert '<span class="string">cd&#34;</span>' in shown


def test_a_sample_is_shown_as_it_is():
    text = "\n\n  <b>&amp;\t\n"
    (shown,) = re.findall(r"<pre[^>]*>\n(.*)</pre>", sample("", text), re.DOTALL)
    assert html.unescape(shown) == text and "<b>" not in shown
