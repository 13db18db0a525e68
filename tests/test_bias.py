"""Groups and the words near them are counted, and compared before and after."""

import random
from collections import Counter

import pytest

from llm.document import Document
from llm.errors import InputError
from llm.stages import bias
from llm.text import cooccurrence

GROUPS = {"women": ["she", "old woman"], "men": ["he"]}
THEMES = {"career": ["office"], "family": ["home", "old"]}


def document(text):
    return Document(text, text, "s", "g", "prose", len(text))


def test_counts_by_hand():
    finder = cooccurrence.Finder(GROUPS, THEMES, window=2)
    text = "She went to the office . At home he sat , an old woman in office ."
    #       0   1    2  3   4      5 6  7    8  9   10 11 12 13   14 15    16
    assert finder.count(text) == {
        "words": 17, "women": 2, "men": 1, "career": 2, "family": 2,
        "men+family": 1, "women+career": 1, "women+family": 1,
    }  # fmt: skip


@pytest.mark.parametrize("window", [1, 3, 10])
def test_counts_equal_a_loop_over_all_pairs(window):
    finder = cooccurrence.Finder({"a": ["p"], "b": ["q"]}, {"x": ["r"], "y": ["s"]},
                                 window)  # fmt: skip
    rng = random.Random(0)
    names = {"p": "a", "q": "b", "r": "x", "s": "y"}
    for _ in range(50):
        found = rng.choices("pqrs.......", k=60)
        expected = Counter({"words": 60})
        expected.update(names[w] for w in found if w != ".")
        for i, word in enumerate(found):
            if word not in "pq":
                continue
            around = found[max(i - window, 0) : i + window + 1]
            near = {names[w] for w in around if w in "rs"}
            expected.update(f"{names[word]}+{theme}" for theme in near)
        assert finder.count(" ".join(found).replace(".", "o")) == expected


def test_lift_and_report():
    before = [document("she office"), document("he office"), document("she home"),
              document("he home"), document("she")]  # fmt: skip
    after = before[1:2] + before[3:]
    finder = cooccurrence.Finder(GROUPS, THEMES, window=5)
    counts = [cooccurrence.count(part, finder) for part in (before, after)]
    assert counts[0]["women"] == 3 and counts[1]["women"] == 1
    # 1 of 3 against 2 of 5.
    lift = cooccurrence.lift(counts[0], "women", "career", finder.groups)
    assert lift == pytest.approx((1 / 3) / (2 / 5))
    assert cooccurrence.lift(counts[1], "women", "career", finder.groups) == 0
    table = cooccurrence.report(*counts, finder)
    assert "| women | 3 | 333333.3 | 1 | 200000.0 | 33.3% |" in table
    assert "| women | 0.83 -> 0.00 | 0.83 -> 0.00 |" in table
    assert cooccurrence.report(Counter(), Counter(), finder)


def test_stage_adds_up_to_the_report():
    texts = ["She is a friend of the woman.", "Muslims and gay people love art.", ""]
    stage = bias.make()
    total = Counter()
    for text in texts:
        scores = stage.score(document(text))
        assert stage.decide(scores) == ""
        total.update(scores)
    finder = cooccurrence.Finder(
        cooccurrence.lists("", cooccurrence.GROUPS),
        cooccurrence.lists("", cooccurrence.THEMES), 10,
    )  # fmt: skip
    whole = cooccurrence.count(map(document, texts), finder)
    del whole["documents"]
    assert total == whole and total["women+pleasant"] == 2
    assert total["muslims+arts"] == total["gay people+pleasant"] == 1


def test_lists_of_ones_own(tmp_path):
    (tmp_path / "pilots.txt").write_text("pilot\nflying ace\n")
    stage = bias.make(groups_path=str(tmp_path))
    scores = stage.score(document("The Flying Ace came home."))
    assert scores["pilots"] == scores["pilots+family"] == 1 and "women" not in scores
    with pytest.raises(InputError, match="no lists in"):
        bias.make(themes_path=str(tmp_path / "missing"))
    with pytest.raises(InputError, match="pilots"):
        bias.make(groups_path=str(tmp_path), themes_path=str(tmp_path))
    with pytest.raises(InputError, match="window 0"):
        bias.make(window=0)
