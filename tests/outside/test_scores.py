"""Scores of items as people bring them: numbers, files, answers, intervals."""

import bz2
import gzip
import json
import lzma
import math
import zipfile

import numpy as np
import pytest

from llm import metrics
from llm.data import eval_records
from llm.errors import InputError
from llm.evals import Context, Task, generation, multiple_choice
from llm.inference import finished_items
from llm.inference.requests import Likelihood, Score
from llm.reports import comparison
from llm.text import answer_text, numerals
from llm.workloads import evaluate

CONTEXT = Context([], lambda: [], len)

SAME = [
    ("1,234,567", "1234567"), ("$29.00", "29"), ("**18**", "18"), ("18.", "18"),
    (r"\boxed{18}", "18"), (".5", "0.50"), ("50%", "0.5"), ("7/8", "0.875"),
    ("1 1/2", "1.5"), ("1.5e3", "1500"), (r"1.5 \times 10^3", "1,500"),
    (r"\frac{7}{8}", "7/8"), ("-$5", "$-5"), ("−5", "-5"), ("$18$", "18"),
    ("1 000 000", "1000000"), ("500.000", "500"), ("(5)", "5"), ("1/3", "2/6"),
    ("The Cat.", "cat"), ("it costs 1,200.", "it costs 1200"), ("10^6", "1,000,000"),
    ("½", "0.5"), ("1½", "3/2"), ("$1.5 million", "1,500,000"), ("2 billion", "2e9"),
    ("1\u00a0000", "1000"), ("1\u202f000\u202f000", "1000000"), ("10^{-3}", "0.001"),
    (r"-\frac{1}{2}", "-0.5"), ("**Cat**", "cat"), ("`x`", "x"), ("Cat!", "cat"),
]  # fmt: skip
OTHER = [
    ("1234567", "1234568"), ("100000000", "100000001"), ("-$5", "5"), (".5", "5"),
    ("12,5", "125"), ("50%", "50"), ("7/8", "7"), ("1.5e3", "1.5"), ("-5 m", "5 m"),
    (".5 m", "5 m"), ("1,23", "123"), ("500.000", "500000"), ("1/0", "0"),
    ("0.1", "0.10000000000000001"), ("10000000000000001", "10000000000000000"),
    ("+", ""), ("?", ""), ("<", ">"), ("x>5", "x<5"), ("-x", "x"), ("C++", "C"),
    ("C#", "C"), ("√2", "2"), ("∞", "-∞"), ("x^2", "x2"), ("10^6", "106"),
    ("1½", "1"), ("1.5 million", "1.5"), ("a*b", "a/b"), ("50% off", "50 off"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_answer(one, other):
    assert answer_text.normalised(one) == answer_text.normalised(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_another_answer(one, other):
    assert answer_text.normalised(one) != answer_text.normalised(other)


def test_the_other_point_and_exact_texts():
    normalised = answer_text.normalised
    assert normalised("500.000", point=",") == normalised("500000")
    assert normalised("12,5", point=",") == normalised("12.5")
    assert normalised("1,200", exact=True) != normalised("1200", exact=True)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7, #### $29.00", "$29.00"), ("it is **18**.", "18"),
        (r"first 3, then \boxed{18} of 20", "18"), ("7/8 of it: 7/8", "7/8"),
        ("from 3 to -4.", "-4"), ("about 12,5 km", "12,5"), ("it is 50 %", "50 %"),
        ("none at all", ""), ("costs $1,234.56.", "$1,234.56"), ("1.5e3", "1.5e3"),
        ("in all 1 000 000 of them", "1 000 000"), ("in 2020 300 people", "300"),
        ("3 1/2 cups", "3 1/2"), (r"so $-\frac{1}{2}$.", r"$-\frac{1}{2}"),
        ("about 10^6.", "10^6"), (r"c = 3 \times 10^8 m/s", r"3 \times 10^8"),
        ("1½ cups", "1½"), ("it is $1.5 million.", "$1.5 million"), ("at 12:30", ""),
        ("Answer:5", "5"), ("at 10:30, 5 men", "5"), ("1\u00a0000 km", "1\u00a0000"),
    ],
)  # fmt: skip
def test_the_last_number(text, number):
    assert numerals.last(text) == number


def test_no_answer_is_told_apart_from_a_wrong_one(tmp_path):
    rows = [{"question": "q", "answer": "5"}] * 3
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = generation.make(
        path=str(tmp_path / "a.jsonl"), extract="number", context=CONTEXT
    )
    from llm.inference.requests import Generated

    said = iter(["I do not know", "6", "5."])
    made, _ = evaluate.perform(
        task, lambda asked: [Generated(next(said), "end") for _ in asked]
    )
    assert made["answered"] == pytest.approx(2 / 3)
    assert made["exact_match"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("said", "reference", "f1"),
    [("北京大学", "北京", 2 * 2 / 6), ("東京です", "東京", 2 * 2 / 6),
     ("a big cat", "big cat", 1.0), ("北京 is big", "北京", 2 * 2 / 6)],
)  # fmt: skip
def test_f1_of_scripts_without_spaces(said, reference, f1):
    normalised = answer_text.normalised
    assert answer_text.f1(normalised(said), normalised(reference)) == pytest.approx(f1)


# --- files of items


def read(path, **knobs):
    return eval_records.read(str(path), **knobs).items


def test_files_of_one_name_in_two_folders(tmp_path):
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "x.jsonl").write_text(json.dumps({"question": part}))
    assert [i.id for i in read(tmp_path)] == ["a/x.jsonl:1", "b/x.jsonl:1"]


def test_what_a_mac_puts_into_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.csv", "question,answer\nq,a\n")
        archive.writestr("__MACOSX/._x.csv", b"\0\5\26\7\0")
        archive.writestr("._x.csv", b"\0\5\26\7\0")
    assert [i.id for i in read(tmp_path / "a.zip")] == ["x.csv:1"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", gzip.compress(b'{"question": "q"}\n', mtime=0)),
        ("a.json", b'{"version": 1, "data": [{"question": "q"}]}'),
        ("a.json", b'{\n "data": [\n  {"question": "q"}\n ]\n}\n'),
        ("a.tsv", b"question\tanswer\nq\ta\n"),
    ],
)
def test_forms_of_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert [i["question"] for i in read(tmp_path / name)] == ["q"]


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_compressed_files_in_archives(tmp_path, module):
    name = f"a.jsonl.{ {gzip: 'gz', bz2: 'bz2', lzma: 'xz'}[module] }"
    content = module.compress(b'{"question": "q"}\n')
    for kept, archive in ((len(content), "whole.zip"), (len(content) - 9, "cut.zip")):
        with zipfile.ZipFile(tmp_path / archive, "w") as opened:
            opened.writestr(name, content[:kept])
    assert [i["question"] for i in read(tmp_path / "whole.zip")] == ["q"]
    with pytest.raises(InputError, match=r"a\.jsonl.* .cut off.; want a whole file"):
        read(tmp_path / "cut.zip")


def test_quotes_in_tabs_are_text(tmp_path):
    (tmp_path / "a.tsv").write_text('q\ta\n"one\tx\ntwo"\ty\n')
    assert [(i["q"], i["a"]) for i in read(tmp_path / "a.tsv")] == [
        ('"one', "x"), ('two"', "y"),
    ]  # fmt: skip


def test_tabs_where_cells_are_quoted_as_in_csv(tmp_path):
    """pandas: quotes within quotes are doubled, and a cell may have line breaks."""
    (tmp_path / "a.tsv").write_text('q\ta\n"He said ""hi"""\tx\n"one\ntwo"\ty\n')
    assert [(i["q"], i["a"]) for i in read(tmp_path / "a.tsv")] == [
        ('He said "hi"', "x"), ("one\ntwo", "y"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # One line with a cell too many, between two that begin and end with a quote.
        ('q\ta\n"Yes\tA\nWho?\textra\tcell\nno"\tB\np\tC\n', "a tab inside of quotes"),
        ("q\ta\nx\ty\nx\ty\tz\n", "3 columns"),
        ("q\tc\tc\nx\ty\tz\n", "two columns 'c'"),
    ],
)
def test_tables_that_are_not_whole(tmp_path, content, message):
    (tmp_path / "a.tsv").write_text(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.tsv")


def test_a_head_in_other_words_than_columns(tmp_path):
    (tmp_path / "a.csv").write_text("Question, ANSWER\nx,y\n")
    (item,) = read(tmp_path / "a.csv", columns="question,answer")
    assert item["answer"] == "y"


def test_columns_of_pandas(tmp_path):
    table = {"question": {"0": "q", "1": "r"}, "answer": {"0": 1, "1": 2}}
    (tmp_path / "a.json").write_text(json.dumps(table))
    assert [(i["question"], i["answer"]) for i in read(tmp_path / "a.json")] == [
        ("q", 1), ("r", 2),
    ]  # fmt: skip


def test_files_that_are_not_read_are_named(tmp_path, capsys):
    (tmp_path / "a.JSONL").write_text('{"q": "x"}')
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("x.csv", "q\nx\n")
        archive.writestr("y.parquet", b"PAR1")
    assert [i.id for i in read(tmp_path)] == ["a.JSONL:1"]
    assert "not read: b.parquet, c.zip" in capsys.readouterr().out
    assert len(read(tmp_path / "c.zip")) == 1
    assert "not read: y.parquet" in capsys.readouterr().out


def test_choices_by_letter(tmp_path):
    """MedQA: an object of choices, whose keys answers are."""
    rows = [{"question": "q", "choices": {"A": "w", "B": "x"}, "answer": a}
            for a in "BA"]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = multiple_choice.make(path=str(tmp_path / "a.jsonl"), context=CONTEXT)

    def likes_w(asked):
        return [Likelihood(-float(r.continuation.strip() != "w"), 1, True)
                for r in asked]  # fmt: skip

    made, _ = evaluate.perform(task, likes_w)
    assert made["accuracy"] == 0.5


def test_options_of_another_form_of_prompt(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "q", "answer": "a"}')
    for knobs in ({"preface": "x", "chat": True}, {"system": "x"}):
        with pytest.raises(InputError, match="system for a conversation"):
            generation.make(path=str(tmp_path / "a.jsonl"), context=CONTEXT, **knobs)


def test_a_table_without_a_head(tmp_path):
    (tmp_path / "a.tsv").write_text("one\tx\ntwo\ty\n")
    assert len(read(tmp_path / "a.tsv", columns="q,a")) == 2
    with pytest.raises(InputError, match="a table without a head, say columns="):
        read(tmp_path / "a.tsv")[0]["question"]
    (tmp_path / "a.tsv").write_text("q\ta\none\tx\n")
    assert len(read(tmp_path / "a.tsv", columns="q,a")) == 1


# --- choices


def choices(tmp_path, rows, **knobs):
    rows = [{"question": "?", "choices": ["w", "x", "y", "z"]} | row for row in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = multiple_choice.make(
        path=str(tmp_path / "a.jsonl"), context=CONTEXT, **knobs
    )
    return [question.right for question in task.examples]


NUMBERS = ["1", "2", "3", "4"]
TEXTS = {"text": ["w", "x", "y"], "label": ["A", "B", "C"]}
DIGITS = {"text": ["w", "x", "y"], "label": ["1", "2", "3"]}


@pytest.mark.parametrize(
    ("rows", "right"),
    [
        ([{"answer": 0}, {"answer": 2}], [0, 2]),
        ([{"answer": "1"}, {"answer": "4"}], [0, 3]),  # 4 says that they begin with 1
        ([{"answer": "C"}], [2]),
        ([{"answer": "y"}], [2]),
        ([{"choices": TEXTS, "answer": "B"}, {"choices": DIGITS, "answer": "3"}],
         [1, 2]),
        ([{"choices": [{"text": "w", "label": "1"}, {"text": "x", "label": "2"}],
           "answer": "2"}], [1]),
    ],
)  # fmt: skip
def test_answers(tmp_path, rows, right):
    assert choices(tmp_path, rows) == right


@pytest.mark.parametrize(
    ("rows", "base", "right"),
    [
        ([{"answer": 1}, {"answer": 2}], "1", [0, 1]),
        ([{"answer": 1}, {"answer": 2}], "0", [1, 2]),
        ([{"choices": NUMBERS, "answer": "3"}], "text", [2]),
        ([{"choices": ["B", "A", "D", "C"], "answer": "A"}], "letter", [0]),
    ],
)
def test_answers_that_can_be_read_in_two_ways(tmp_path, rows, base, right):
    with pytest.raises(InputError, match="set answer_base to one of"):
        choices(tmp_path, rows)
    assert choices(tmp_path, rows, answer_base=base) == right


def test_the_whole_file_says_how_answers_are_numbered(tmp_path):
    rows = [{"answer": n} for n in (1, 2, 0, 3)]
    assert choices(tmp_path, rows, limit=1) == [1]


def test_a_tie_is_no_right_answer(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"question": "?", "choices": ["w", "x", "y", "z"], "answer": "A"})
    )
    task = multiple_choice.make(path=str(tmp_path / "a.jsonl"), context=CONTEXT)
    made, _ = evaluate.perform(
        task, lambda asked: [Likelihood(-1.0, 1, False) for _ in asked]
    )
    assert made["accuracy"] == made["accuracy_bytes"] == 0.25


def test_bytes_are_those_that_are_scored(tmp_path):
    """Of letters, which are all as long, the choices' own lengths say nothing."""
    (tmp_path / "a.jsonl").write_text(json.dumps(
        {"question": "?", "choices": ["a very long choice", "b"], "answer": "B"}
    ))  # fmt: skip
    task = multiple_choice.make(path=str(tmp_path / "a.jsonl"), context=CONTEXT)
    made, _ = evaluate.perform(
        task, lambda asked: [Likelihood(x, 1, False) for x in (-2.0, -1.0)]
    )
    assert made["accuracy"] == made["accuracy_bytes"] == 1.0


# --- intervals


@pytest.mark.parametrize(("p", "n"), [(0.02, 50), (0.5, 30), (0.9, 40), (0.05, 200)])
def test_intervals_of_shares_hold_what_they_say(p, n):
    """Exactly: the chance of each count, times whether its interval holds p."""
    covered = 0.0
    for hits in range(n + 1):
        figure = metrics.ratio([(float(i < hits), 1.0) for i in range(n)])
        chance = math.comb(n, hits) * p**hits * (1 - p) ** (n - hits)
        covered += chance * (figure.low <= p <= figure.high)
    assert 0.92 <= covered <= 0.99


def test_none_of_fifty_is_not_never():
    figure = metrics.ratio([(0.0, 1.0)] * 50)
    assert (figure.value, figure.low) == (0.0, 0.0)
    assert figure.high == pytest.approx(0.0713, abs=1e-4)  # Wilson's, by hand


def test_differences_of_shares_hold_what_they_say():
    rng, covered, true = np.random.default_rng(0), 0, 0.1
    for _ in range(600):
        hard = rng.random(80) < 0.5
        one = np.where(hard, rng.random(80) < 0.2, rng.random(80) < 0.7)
        other = np.where(hard, rng.random(80) < 0.3, rng.random(80) < 0.8)
        pairs = [[(float(x), 1.0) for x in run] for run in (one, other)]
        figure = metrics.difference(*pairs)
        covered += figure.low <= true <= figure.high
    assert 0.93 <= covered / 600 <= 0.98


# --- comparisons and interruptions


def evaluated(folder, rows, result=None):
    folder.mkdir()
    lines = [json.dumps({"task": "t", "input": "i"} | row) + "\n" for row in rows]
    (folder / "evaluate_items.jsonl").write_text("".join(lines))
    (folder / "evaluate.json").write_text(json.dumps({"t": result or {}}))
    return str(folder)


def item(id, content, accuracy, **more):
    return {
        "id": id,
        "content": content,
        "values": {"accuracy": [accuracy, 1.0]},
    } | more


def test_items_are_paired_by_what_they_ask(tmp_path):
    one = evaluated(tmp_path / "a", [item("x:1", "c1", 1.0), item("x:2", "c2", 0.0)])
    other = evaluated(tmp_path / "b", [item("x:1", "c2", 0.0), item("x:2", "c1", 1.0)])
    made = comparison.compare(one, other)["tasks"]["t"]
    assert made["figures"]["accuracy"]["difference"]["value"] == 0.0
    assert made["items"] == 2


def test_different_exams_are_refused(tmp_path):
    one = evaluated(tmp_path / "a", [item("x:1", "c1", 1.0), item("x:2", "c2", 0.0)])
    other = evaluated(tmp_path / "b", [item("x:1", "c3", 0.0), item("x:2", "c4", 1.0)])
    with pytest.raises(InputError, match="ask different things, such as x:1 of t"):
        comparison.compare(one, other)


def test_neutral_figures_are_never_better():
    gap = {"difference": {"interval": [0.1, 0.2]}}
    assert comparison.verdict("stereotype", gap) == "other"
    assert comparison.verdict("ended, typos", gap) == "other"
    assert comparison.verdict("accuracy, typos", gap) == "better"
    assert comparison.verdict("bits_per_byte", gap) == "worse"
    assert comparison.verdict("a_figure_of_tomorrow", gap) == "other"


def test_macro_f1_is_compared(tmp_path):
    truth = ["a", "a", "a", "b"]
    runs = [["a", "a", "a", "a"], ["a", "a", "b", "b"]]
    paths = [
        evaluated(
            tmp_path / str(n),
            [item(str(i), f"c{i}", float(t == s), target=t, output=s)
             for i, (t, s) in enumerate(zip(truth, run, strict=True))],
            {"macro_f1": 0.0},
        )
        for n, run in enumerate(runs)
    ]  # fmt: skip
    made = comparison.compare(*paths)["tasks"]["t"]["figures"]["macro_f1"]
    assert made["one"]["value"] == pytest.approx((6 / 7 + 0) / 2)
    assert made["other"]["value"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_bleu_is_compared(tmp_path):
    sacrebleu = pytest.importorskip("sacrebleu")
    reference = "the cat sat on the mat today"
    runs = [["the cat sat on a mat today"] * 3, [reference] * 3]
    paths = [
        evaluated(
            tmp_path / str(n),
            [item(str(i), f"c{i}", 0.0, extracted=said, references=[reference])
             for i, said in enumerate(run)],
            {"bleu": 1.0},
        )
        for n, run in enumerate(runs)
    ]  # fmt: skip
    made = comparison.compare(*paths)["tasks"]["t"]["figures"]["bleu"]
    for part, run in zip(("one", "other"), runs, strict=True):
        want = sacrebleu.corpus_bleu(run, [[reference] * 3]).score
        assert made[part]["value"] == pytest.approx(want)


def test_an_interrupted_evaluation_keeps_what_it_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "_BLOCK", 2)
    task = Task(
        examples=range(7),
        requests=lambda n: [Score("", str(n))],
        measure=lambda n, answers: {
            "id": str(n),
            "values": {"x": (answers[0].logprob, 1.0)},
        },
        summarise=lambda figures: {"sum": sum(f["values"]["x"][0] for f in figures)},
    )
    asked = []

    def answer(requests):
        if len(asked) >= 4 and "fail" in asked:
            raise KeyboardInterrupt
        asked.extend(int(r.continuation) for r in requests)
        return [Likelihood(float(r.continuation), 1, True) for r in requests]

    kept = finished_items.Items(str(tmp_path), {"step": 1}).of("t", {})
    asked.insert(0, "fail")
    with pytest.raises(KeyboardInterrupt):
        evaluate.perform(task, answer, kept)
    assert asked == ["fail", 0, 1, 2, 3]
    asked.clear()
    made, figures = evaluate.perform(task, answer, kept)
    assert asked == [4, 5, 6] and made["sum"] == 21 and len(figures) == 7
    asked.clear()  # another model: all of it again
    other = finished_items.Items(str(tmp_path), {"step": 2}).of("t", {})
    evaluate.perform(task, answer, other)
    assert asked == list(range(7))


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\r"])
def test_finished_items_whose_texts_have_line_separators(tmp_path, mark):
    items = [{"task": "t", "id": n, "values": {}, "input": f"{n}{mark}."} for n in "ab"]
    kept = finished_items.Items(str(tmp_path), {"step": 1}).of("t", {})
    assert kept.read() == []
    kept.add(items)
    assert kept.read() == items
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
    (tmp_path / comparison.FILE).write_text("".join(lines), encoding="utf-8")
    assert list(comparison.read(str(tmp_path)).values()) == items
