"""Drift on written-out tables, against scipy, and on windows that are and are not."""

import json
import math

import numpy as np
import pytest

from llm import config, registry
from llm.errors import InputError
from llm.serve import drift, request_record
from llm.serve.request_record import Record

pytest.importorskip("scipy")


def test_psi_by_hand():
    want = (0.3 - 0.5) * math.log(0.3 / 0.5) + (0.7 - 0.5) * math.log(0.7 / 0.5)
    assert drift.psi([0.5, 0.5], [0.3, 0.7]) == pytest.approx(want)
    assert drift.psi([0.2, 0.8], [0.2, 0.8]) == 0
    # An empty bin counts as 0.01 %.
    want = (1e-4 - 0.5) * math.log(1e-4 / 0.5) + (1.0 - 0.5) * math.log(1.0 / 0.5)
    assert drift.psi([0.5, 0.5], [0.0, 1.0]) == pytest.approx(want)


def test_bins_are_of_the_reference():
    expected, actual = drift.shares(range(100), [5] * 3 + [95])
    np.testing.assert_allclose(expected, [0.1] * 10, atol=0.011)
    assert actual[0] == 0.75 and actual[-1] == 0.25 and actual.sum() == 1
    # Equal values share a bin, however many quantiles they hold.
    expected, actual = drift.shares([1] * 90 + [2] * 10, [2] * 4)
    assert expected.sum() == 1 and drift.psi(expected, actual) > 1


def log(count, seed, *, longer=1.0, english=0.9, start=0.0):
    rng = np.random.default_rng(seed)
    return [
        Record(
            time=start + n * 60.0,
            prompt_tokens=int(rng.lognormal(4, 1) * longer),
            completion_tokens=int(rng.lognormal(5, 0.5)),
            finish_reason="stop" if rng.random() < 0.8 else "length",
            mean_logprob=float(-rng.gamma(2, 0.3)),
            language="en" if rng.random() < english else "de",
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("sizes", [(40, 30), (400, 60), (3000, 3000)])
def test_what_is_alike_does_not_drift(sizes):
    for seed in range(15):
        found, missing = drift.compare(log(sizes[0], seed), log(sizes[1], seed + 99))
        assert [f.name for f in found if f.level == "drift"] == []
        assert missing == ["fallback_share", "latency"]


def test_what_changed_drifts():
    from scipy import stats

    reference = log(500, 0)
    found, _ = drift.compare(reference, log(500, 1, longer=3.0))
    levels = {f.name: f.level for f in found}
    assert levels.pop("prompt_tokens") == "drift"
    assert "drift" not in levels.values()
    (length,) = [f for f in found if f.name == "prompt_tokens"]
    test = stats.ks_2samp(
        [r.prompt_tokens for r in reference],
        [r.prompt_tokens for r in log(500, 1, longer=3.0)],
    )
    assert (length.ks, length.p_value) == (test.statistic, test.pvalue)
    found, _ = drift.compare(reference, log(500, 1, english=0.4))
    assert [f.name for f in found if f.level == "drift"] == ["language"]


def test_records_come_back(tmp_path):
    records = [
        Record(2.0, 3, 4, "stop", -0.5, 0.25, "en", 1.5, "p\n", "é"),
        Record(1.0, 1, 0),
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(r.line() for r in records), encoding="utf-8")
    assert request_record.read(str(path)) == records[::-1]
    assert json.loads(records[1].line()) == {
        "time": 1.0, "prompt_tokens": 1, "completion_tokens": 0,
    }  # fmt: skip


def test_a_record_of_a_request():
    class Tokenizer:
        piece_bytes = (b"", b"a", b"\xc3", b"\xa9", b"the", "é".encode())

    made = request_record.of(
        5.0, [1, 2, 3, 4, 5], [4, 4], [-1.0, -2.0], tokenizer=Tokenizer(),
        finish_reason="length", latency=0.5,
    )  # fmt: skip
    assert made == Record(5.0, 5, 2, "length", -1.5, 0.4, "", 0.5)
    assert request_record.of(5.0, [1], []).mean_logprob is None


BAD = [
    ("", "no records in"),
    ('{"time": 1', "line 1, which is not JSON"),
    ('{"time": 1, "prompt_tokens": 2}', "line 1 without completion_tokens"),
    ('{"time": "x", "prompt_tokens": 2, "completion_tokens": 1}', "with time 'x'"),
    ('{"time": NaN, "prompt_tokens": 2, "completion_tokens": 1}', "with time nan"),
    ("[1]", r"line 1: \[1\]"),
]


@pytest.mark.parametrize("text, message", BAD)
def test_bad_logs(tmp_path, text, message):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        request_record.read(str(path))


def monitor(tmp_path, records, name, **knobs):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(r.line() for r in records))
    c = config.load("configs/x", "monitor")
    c.monitor.update(log=str(path), **knobs)
    registry.build("workloads", "monitor")(c, str(tmp_path / name))
    return json.loads((tmp_path / name / "monitor.json").read_text())


def test_as_a_user_does(tmp_path):
    made = monitor(tmp_path, log(600, 0), "calm", hours=2.0)
    assert made["drift"] == [] and made["window_records"] == 121
    both = [*log(600, 0), *log(120, 1, longer=4.0, start=36_000.0)]
    with pytest.raises(SystemExit) as stopped:
        monitor(tmp_path, both, "changed", hours=2.0)
    assert stopped.value.code == 3
    html = (tmp_path / "changed" / "monitor.html").read_text()
    assert "drift: prompt_tokens" in html
    with pytest.raises(InputError, match=r"no monitor\.reference"):
        monitor(tmp_path, both, "nothing")
    with pytest.raises(InputError, match="5 records in the window"):
        monitor(tmp_path, both, "few", hours=0.07)
