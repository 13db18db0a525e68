"""Two evaluations beside each other: paired differences, verdicts, and the page."""

import json

import pytest

from llm import config, registry
from llm.errors import InputError
from llm.reports import comparison


def write(folder, rows):
    folder.mkdir()
    lines = [
        {"task": "mc", "id": f"x:{n}", "input": f"Q{n} <b>", "target": "right",
         "output": "right" if hit else "wrong <i>",
         "values": {"accuracy": [float(hit), 1.0]}}
        for n, hit in rows
    ]  # fmt: skip
    lines.append(
        {"task": "perplexity", "id": "d", "values": {"bits_per_byte": [20.0, 10.0]}}
    )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / comparison.FILE).write_text(text)
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    one = write(tmp_path / "one", [(n, n % 4 == 0) for n in range(100)])
    other = write(tmp_path / "other", [(n, n % 4 < 2) for n in range(4, 110)])
    return one, other


def test_figures_are_of_shared_items(runs):
    made = comparison.compare(*runs)["tasks"]["mc"]
    assert (made["items"], made["only_one"], made["only_other"]) == (96, 4, 10)
    both = made["figures"]["accuracy"]
    assert both["one"]["value"] == 0.25 and both["other"]["value"] == 0.5
    assert both["difference"]["value"] == 0.25
    low, high = both["difference"]["interval"]
    # Of 96 differences, 24 are 1 and the others 0: one binomial, not two.
    spread = 1.96 * (0.25 * 0.75 / 96) ** 0.5
    assert low == pytest.approx(0.25 - spread, abs=0.02)
    assert high == pytest.approx(0.25 + spread, abs=0.02)
    assert comparison.verdict("accuracy", both) == "better"
    assert {e["better"] for e in made["examples"]} == {1} and len(made["examples"]) == 5


@pytest.mark.parametrize(
    "figure, interval, want",
    [
        ("accuracy", [0.1, 0.2], "better"), ("accuracy", [-0.2, -0.1], "worse"),
        ("accuracy", [-0.1, 0.1], "same"), ("bits_per_byte", [0.1, 0.2], "worse"),
        ("bits_per_byte", [-0.2, -0.1], "better"), ("stereotype", [0.1, 0.2], "other"),
        ("log_loss, typos", [0.1, 0.2], "worse"), ("accuracy", [0.0, 0.0], "same"),
    ],
)  # fmt: skip
def test_verdicts(figure, interval, want):
    assert comparison.verdict(figure, {"difference": {"interval": interval}}) == want


def test_as_a_user_does(runs, tmp_path, capsys):
    c = config.load("configs/x", "compare")
    c.compare.runs = runs
    registry.build("workloads", "compare")(c, str(tmp_path / "c"))
    assert "mc, accuracy: 0.25 and 0.5, +0.25" in capsys.readouterr().out
    html = (tmp_path / "c" / "compare.html").read_text()
    assert "where other is better" in html and "where one is better" not in html
    assert "Q5 &lt;b&gt;" in html and "<b>\n" not in html and "wrong <i>" not in html


def test_bad_input(runs, tmp_path):
    with pytest.raises(InputError, match=r"no evaluate_items\.jsonl in"):
        comparison.compare(runs[0], str(tmp_path))
    apart = write(tmp_path / "apart", [])
    (tmp_path / "apart" / comparison.FILE).write_text("")
    with pytest.raises(InputError, match="no item that both"):
        comparison.compare(runs[0], apart)
    (tmp_path / "apart" / comparison.FILE).write_text('{"task": ')
    with pytest.raises(InputError, match=r"line 1 \(JSONDecodeError"):
        comparison.compare(runs[0], apart)
    c = config.load("configs/x", "compare")
    with pytest.raises(InputError, match=r"compare\.runs \(\)"):
        registry.build("workloads", "compare")(c, str(tmp_path / "c"))
