"""Tasks on written-out items and answers: what they ask, and what they make of it."""

import json
import math

import numpy as np
import pytest

from llm import evals, registry
from llm.document import Document
from llm.errors import InputError
from llm.evals import Context, classification, robustness
from llm.inference.requests import (
    Generate,
    Generated,
    Likelihood,
    Predict,
    Predicted,
    Score,
)
from llm.text import answer_text

NOTHING = Context([], lambda: [], len)
QUESTIONS = [
    {"question": "1+1?", "choices": ["two", "three"], "answer": 0, "topic": "sums"},
    {"question": "Sky?", "choices": ["red", "blue"], "answer": 1, "topic": "looks"},
    {"question": "Cat?", "choices": ["mew", "woof"], "answer": 0, "topic": "looks"},
]


def file(tmp_path, rows, name="x.jsonl"):
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / name)


def build(name, context=NOTHING, **knobs):
    return registry.build("evals", {"name": name, **knobs}, context=context)


def perform(task, answer):
    """Figures of a task whose requests are answered one by one."""
    figures = [
        task.measure(x, [answer(r) for r in task.requests(x)]) for x in task.examples
    ]
    return task.summarise(figures), figures


def test_multiple_choice(tmp_path):
    path = file(tmp_path, QUESTIONS)
    task = build("multiple_choice", path=path, group="topic", preface="About {topic}:")
    assert task.requests(task.examples[1])[1] == Score(
        "About looks:\n\nSky?\nA. red\nB. blue\nAnswer:", " B"
    )

    def answer(request):  # says A always
        return Likelihood(-1.0 if request.continuation == " A" else -2.0, 1, True)

    made, figures = perform(task, answer)
    assert made["accuracy"] == pytest.approx(2 / 3) and made["chance"] == 0.5
    low, high = made["interval"]["accuracy"]  # Wilson's, of two in three
    assert made["n"] == 3 and (low, high) == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert made["groups"]["looks"]["value"] == 0.5
    assert [f["output"] for f in figures] == ["two", "red", "mew"]
    assert task.about["sha256"] and figures[0]["id"] == "x.jsonl:1"


def test_normalisation_by_bytes_and_tokens(tmp_path):
    rows = [{"question": "q", "choices": ["ab", "abcdé"], "answer": "abcdé"}]
    task = build("multiple_choice", path=file(tmp_path, rows), prompt="{question}",
                 continuation=" {choice}")  # fmt: skip
    table = {" ab": Likelihood(-3.0, 1, False), " abcdé": Likelihood(-6.0, 3, False)}
    made, _ = perform(task, lambda r: table[r.continuation])
    # -3 beats -6; by bytes -1.5 loses to -1.0; by tokens -3 loses to -2.
    got = [made[n] for n in ("accuracy", "accuracy_bytes", "accuracy_tokens")]
    assert got == [0.0, 1.0, 1.0]


def test_shots_are_solved_questions(tmp_path):
    task = build("multiple_choice", path=file(tmp_path, QUESTIONS), shots=1)
    (first, _) = task.requests(task.examples[0])
    assert first.prompt == (
        "1+1?\nA. two\nB. three\nAnswer: A\n\nSky?\nA. red\nB. blue\nAnswer:"
    )
    assert len(task.examples) == 2


@pytest.mark.parametrize(
    "answers, right",
    [
        (["A", "B"], [0, 1]),
        ([0, 1], [0, 1]),
        (["1", "0"], [1, 0]),
        (["x", "w"], [1, 0]),
    ],
)
def test_ways_to_say_the_answer(tmp_path, answers, right):
    rows = [{"question": "q", "choices": ["w", "x"], "answer": a} for a in answers]
    task = build("multiple_choice", path=file(tmp_path, rows))
    assert [q.right for q in task.examples] == right


@pytest.mark.parametrize(
    "change, message",
    [
        ({"answer": "C"}, r"x.jsonl:3 with answer 'C'"),
        ({"answer": 2}, r"x.jsonl:3 with answer 2"),
        ({"answer": -1}, r"x.jsonl:3 with answer -1"),
        ({"choices": ["one"]}, r"x.jsonl:3 with choices"),
        ({"choices": "ab"}, r"x.jsonl:3 with choices"),
        (None, r"x.jsonl:3 without the field 'answer'; want it, among .*choices"),
    ],
)
def test_wrong_questions(tmp_path, change, message):
    rows = [*QUESTIONS[:2], dict(QUESTIONS[2])]
    if change is None:
        del rows[2]["answer"]
    else:
        rows[2] |= change
    with pytest.raises(InputError, match=message):
        build("multiple_choice", path=file(tmp_path, rows))


SUMS = [
    {"question": "6*7?", "answer": "6*7=42\n#### 42"},
    {"question": "a lot?", "answer": "#### 1,200"},
]
NUMBER = r"#### (-?[\d,.]*\d)"


def test_generation_of_numbers(tmp_path):
    task = build("generation", path=file(tmp_path, SUMS), extract=NUMBER, stop="\n\n")
    (request,) = task.requests(task.examples[0])
    assert request == Generate("6*7?", "\n\n", 128, 0.0)
    said = {"6*7?": "#### 6 or\n#### 42.00", "a lot?": "1200 #### none"}
    made, figures = perform(task, lambda r: Generated(said[r.prompt], "stop"))
    assert made["exact_match"] == 0.5 and [f["extracted"] for f in figures] == [
        "42.00", "",
    ]  # fmt: skip
    assert made["ended"] == 1.0
    made, _ = perform(task, lambda r: Generated("#### 1200", "length"))
    assert made["exact_match"] == 0.5 and made["ended"] == 0.0


def test_generation_asks_what_a_run_held_out():
    """Without a file: pairs and completions, not conversations."""
    records = [
        {"source": "def f(): 1", "target": "One."},
        {"prompt": "1, 2,", "completion": " 3"},
        {"messages": [{"role": "user", "content": "hi"}]},
    ]
    documents = [
        Document(f"d{n}", "", "records", "", "record", 0, {"record": record})
        for n, record in enumerate(records)
    ]
    task = build("generation", NOTHING._replace(documents=documents))
    asked = [task.requests(example)[0].prompt for example in task.examples]
    assert asked == ["def f(): 1", "1, 2,"]
    said = {"def f(): 1": "two", "1, 2,": "3"}
    made, _ = perform(task, lambda r: Generated(said[r.prompt], "stop"))
    assert made["exact_match"] == 0.5
    with pytest.raises(InputError, match="name a file of them"):
        build("generation", NOTHING._replace(documents=documents[2:]))


def test_chat_makes_turns(tmp_path):
    task = build(
        "generation", path=file(tmp_path, SUMS), chat=True, shots=1, system="S"
    )
    ((prompt, *_),) = task.requests(task.examples[0])
    assert prompt == (
        ("system", "S"), ("user", "6*7?"), ("assistant", SUMS[0]["answer"]),
        ("user", "a lot?"),
    )  # fmt: skip


def test_matches_as_squad_makes_them():
    same = [("The Cat.", "cat"), ("$1,200", "1200"), ("42.0", "42"), ("a  b", "b")]
    for one, other in same:
        assert answer_text.normalised(one) == answer_text.normalised(other), one
    assert answer_text.normalised("The Cat.", exact=True) == "The Cat."
    assert answer_text.normalised("4.2") != answer_text.normalised("42")
    # Two of three words, both ways.
    assert answer_text.f1("red cat here", "red cat there") == pytest.approx(2 / 3)
    assert answer_text.f1("", "") == 1.0 and answer_text.f1("", "a") == 0.0


def test_bleu_chrf_and_rouge_against_the_libraries(tmp_path):
    sacrebleu = pytest.importorskip("sacrebleu")
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    rows = [
        {"question": "1", "answer": ["the cat sat on the mat today", "a cat sat down"]},
        {"question": "2", "answer": ["dogs bark at the moon every night"]},
        {"question": "3", "answer": "nobody knows what the future brings us"},
    ]
    said = {"1": "the cat sat on a mat today", "2": "dogs bark at night",
            "3": "nobody knows what the day brings us"}  # fmt: skip
    task = build(
        "generation", path=file(tmp_path, rows), metrics=("bleu", "chrf", "rouge")
    )
    made, _ = perform(task, lambda r: Generated(said[r.prompt], "end"))
    references = [
        ["the cat sat on the mat today", "dogs bark at the moon every night",
         "nobody knows what the future brings us"],
        ["a cat sat down", "dogs bark at the moon every night",
         "nobody knows what the future brings us"],
    ]  # fmt: skip
    hypotheses = [said[n] for n in "123"]
    assert made["bleu"] == pytest.approx(
        sacrebleu.corpus_bleu(hypotheses, references).score
    )
    assert made["chrf"] == pytest.approx(
        sacrebleu.corpus_chrf(hypotheses, references).score
    )
    low, high = made["interval"]["bleu"]
    assert low < made["bleu"] < high and "BLEU" not in made["bleu_signature"][:4]
    theirs = scorer.RougeScorer(["rougeL"], use_stemmer=True)
    want = [
        max(theirs.score(k, said[r["question"]])["rougeL"].fmeasure
            for k in (r["answer"] if isinstance(r["answer"], list) else [r["answer"]]))
        for r in rows
    ]  # fmt: skip
    assert made["rougeL"] == pytest.approx(np.mean(want))


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"extract": "("}, "a regular expression"),
        ({"metrics": ("bleurt",)}, "metric 'bleurt'; want of bleu"),
        ({"extract": r"= (\d+)$"}, "x.jsonl:1 with answer"),
    ],
)
def test_wrong_generations(tmp_path, knobs, message):
    with pytest.raises(InputError, match=message):
        build("generation", path=file(tmp_path, SUMS), **knobs)


def test_crows_pairs(tmp_path):
    rows = [
        {"sent_more": "m1", "sent_less": "l1", "bias_type": "age"},
        {"sent_more": "m2", "sent_less": "l2", "bias_type": "age",
         "stereo_antistereo": "antistereo"},
        {"sent_more": "m3", "sent_less": "l3", "bias_type": "gender"},
    ]  # fmt: skip
    task = build("crows_pairs", path=file(tmp_path, rows))
    assert task.requests(task.examples[0]) == [
        Score("", "m1", beside="l1"), Score("", "l1", beside="m1"),
    ]  # fmt: skip
    table = {"m1": -5, "l1": -6, "m2": -5, "l2": -4, "m3": -1, "l3": -9}
    made, _ = perform(task, lambda r: Likelihood(table[r.continuation], 3, False))
    assert made["stereotype"] == pytest.approx(2 / 3)
    assert made["gap_nats"] == pytest.approx((1 + 1 + 8) / 3)
    assert made["bias_type"]["age"]["value"] == 0.5
    assert made["direction"]["antistereo"]["value"] == 0.0
    rows[1]["stereo_antistereo"] = "both"
    with pytest.raises(InputError, match=r"x.jsonl:2 with stereo_antistereo 'both'"):
        build("crows_pairs", path=file(tmp_path, rows))
    rows[1]["sent_less"] = " "
    with pytest.raises(InputError, match=r"x.jsonl:2 with stereo_antistereo"):
        build("crows_pairs", path=file(tmp_path, rows))


def test_classification(tmp_path):
    rows = [{"text": t, "label": x} for t, x in (("a", "A"), ("b", "B"), ("c", "B"))]
    context = NOTHING._replace(classes=("A", "B"))
    task = build("classification", context, path=file(tmp_path, rows))
    assert task.requests(task.examples[0]) == [Predict("a")]
    says = {"a": 0.9, "b": 0.8, "c": 0.3}
    made, figures = perform(
        task, lambda r: Predicted({"A": says[r.text], "B": 1 - says[r.text]})
    )
    assert made["accuracy"] == pytest.approx(2 / 3)
    # A: 1 of 2 said, all found; B: all said are right, 1 of 2 found.
    assert made["macro_f1"] == pytest.approx(2 / 3)
    assert made["confusion"] == {"A": {"A": 1, "B": 0}, "B": {"A": 1, "B": 1}}
    assert made["log_loss"] == pytest.approx(-np.log([0.9, 0.2, 0.7]).mean())
    assert [f["output"] for f in figures] == ["A", "A", "B"]
    rows[2]["label"] = "C"
    with pytest.raises(InputError, match=r"x.jsonl:3 with label 'C'; want one of A, B"):
        build("classification", context, path=file(tmp_path, rows))
    with pytest.raises(InputError, match="no classifier"):
        build("classification", path=file(tmp_path, rows))
    assert classification.TINY["limit"]


TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps all day long."


def distance(one, other):
    """Levenshtein's, with swaps of neighbours."""
    rows = [list(range(len(other) + 1))]
    for i, x in enumerate(one, 1):
        row = [i]
        for j, y in enumerate(other, 1):
            best = min(row[-1] + 1, rows[-1][j] + 1, rows[-1][j - 1] + (x != y))
            swapped = i > 1 and j > 1 and x == other[j - 2] and one[i - 2] == y
            row.append(min(best, rows[-2][j - 2] + 1) if swapped else best)
        rows.append(row)
    return rows[-1][-1]


@pytest.mark.parametrize("rate, most", [(0.05, 1), (0.5, 8), (1.0, 16)])
def test_typos_are_small_seeded_and_pure(rate, most):
    made = robustness.typos(TEXT, rate, 0)
    assert made == robustness.typos(TEXT, rate, 0) != TEXT
    assert 1 <= distance(TEXT, made) <= most
    words = made.split()
    assert len(words) == len(TEXT.split())
    assert len({robustness.typos(TEXT, rate, seed) for seed in range(20)}) > 10
    assert robustness.typos("a 12 ?", 1.0, 0) == "a 12 ?"


def test_keys_are_beside():
    import random

    near = {robustness._beside("s", random.Random(n)) for n in range(200)}
    assert near == set("awdx") and robustness._beside("Q", random.Random(0)) in "WA"
    assert robustness._beside("é", random.Random(0)) == "éé"


def test_spaces_and_case():
    lost = robustness.lost_spaces(TEXT, 0.2, 0)
    assert lost.replace(" ", "") == TEXT.replace(" ", "") and len(lost) < len(TEXT)
    more = robustness.more_spaces(TEXT, 0.2, 0)
    assert more.split() == TEXT.split() and len(more) > len(TEXT)
    assert robustness.lower("Ab", 1, 0) == "ab" and robustness.upper("Ab", 1, 0) == "AB"


def test_robustness_is_the_drop_of_another_task(tmp_path):
    inner = build("multiple_choice", path=file(tmp_path, QUESTIONS))
    context = NOTHING._replace(task={"mc": inner}.__getitem__)
    task = build("robustness", context, of="mc")

    def answer(request):  # says A, and B where it is shouted at
        says = " B" if request.prompt.isupper() else " A"
        return Likelihood(-1.0 if request.continuation == says else -2.0, 1, False)

    made, figures = perform(task, answer)
    assert made["accuracy, as it is"] == pytest.approx(2 / 3)
    assert made["accuracy, capitals"] == pytest.approx(1 / 3)
    assert made["drop"]["capitals"]["accuracy"]["value"] == pytest.approx(1 / 3)
    same = made["drop"]["lower case"]["accuracy"]
    assert (same["value"], same["n"]) == (0.0, 3)
    low, high = same["interval"]  # three items show nothing, also where all agree
    assert low == pytest.approx(-high) and high > 0.4
    assert len(task.requests(task.examples[0])) == 2 * 6 and len(figures) == 3
    with pytest.raises(InputError, match="robustness of ''"):
        build("robustness", context)


def test_a_perplexity_has_an_interval():
    from llm.document import Document
    from llm.inference.requests import Scored

    documents = [Document(str(n), "x", "t", "g", "prose", 10 + n) for n in range(5)]
    task = build("perplexity", NOTHING._replace(documents=documents))
    made, figures = perform(task, lambda r: Scored(8.0, 4, 2))
    assert made["interval"]["perplexity"] == [pytest.approx(math.exp(2))] * 2
    low, high = made["interval"]["bits_per_byte"]
    assert low < made["bits_per_byte"] < high
    assert figures[3]["values"]["bits_per_byte"] == (8.0 / math.log(2), 13.0)


def test_metrics_are_declared_once_and_alike():
    """A name means the same in every task; what a task makes is declared."""
    declared = {}
    for name in registry.choices("evals"):
        for metric in registry.module("evals", name).METRICS:
            same = declared.setdefault(metric.name, metric)
            assert same[:5] == metric[:5], metric.name
            assert metric.better in ("", "higher", "lower")
            metric.shown(0.5)
    assert declared == evals.metrics()


def test_needs_are_those_of_the_task():
    assert evals.needs({"name": "perplexity"}) == {"corpus", "likelihood"}
    assert evals.needs({"name": "generation"}) == {"corpus"}
    assert evals.needs({"name": "generation", "path": "x", "shots": 2}) == set()
    assert evals.needs({"name": "multiple_choice", "path": "x"}) == set()
