"""Rules about quality equal those of datatrove, value for value, on the same words.

datatrove only says whether a text passes, so that each of its thresholds is put at our
score: a rule must let a text pass whose score is the threshold, and must drop it when
the threshold is the next float beyond.
"""

import dataclasses
import math
import re

import pytest
import quality_texts

from llm.document import Document
from llm.stages import (
    c4,
    c4_lines,
    fineweb,
    gopher_quality,
    gopher_repetition,
)
from llm.text.word_breaks import PUNCTUATION, TERMINAL, sentences, words

TEXTS = quality_texts.texts()


def document(text):
    """In English, for which the rules were published: they are then as they were."""
    return Document("x", text, "s", "g", "prose", len(text), {"language": "en"})


@pytest.fixture(scope="module")
def datatrove():
    """datatrove's filters, which cut words and sentences as we do."""
    filters = pytest.importorskip("datatrove.pipeline.filters")
    import datatrove.utils.word_tokenizers as tokenizers

    class Ours:
        def word_tokenize(self, text):
            return list(words(text))

        def span_tokenize(self, line):
            return [(0, 0)] * (sentences(line) - 1) + [(0, len(line))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizers, "load_word_tokenizer", lambda language: Ours())
        yield filters


def passes(chosen, text):
    from datatrove.data import Document as Theirs

    theirs = Theirs(text=text, id="x")
    result = chosen.filter(theirs)
    kept, reason = result if isinstance(result, tuple) else (result, "")
    return kept, reason, theirs.text


def check_scores(make, rules, scores, text):
    """Each rule passes at our score and fails beyond; rules: name -> knob, sign."""
    for name, (knob, sign) in rules.items():
        value = scores[name]
        assert math.isfinite(value)
        beyond = math.nextafter(value, sign * math.inf)
        if value:  # 0 would switch the rule off
            assert passes(make(knob(value)), text)[0], (name, value, text[:60])
        assert beyond <= 0 or not passes(make(knob(beyond)), text)[0], (name, value)


def test_gopher_quality(datatrove):
    off = dict.fromkeys(
        ("min_doc_words", "max_doc_words", "min_avg_word_length",
         "max_avg_word_length", "max_symbol_word_ratio", "max_bullet_lines_ratio",
         "max_ellipsis_lines_ratio", "max_non_alpha_words_ratio", "min_stop_words"),
        0,
    )  # fmt: skip

    def make(knobs):
        return datatrove.GopherQualityFilter(**off | knobs)

    def knob(name):
        return lambda value: {name: value}

    stage = gopher_quality.make()
    seen = set()
    for text in TEXTS:
        scores = stage.score(document(text))
        rules = {
            "words": (knob("min_doc_words"), 1),
            "mean_length": (knob("min_avg_word_length"), 1),
            "bullet_lines": (knob("max_bullet_lines_ratio"), -1),
            "ellipsis_lines": (knob("max_ellipsis_lines_ratio"), -1),
            "alphabetic": (knob("max_non_alpha_words_ratio"), 1),
            "stop_words": (knob("min_stop_words"), 1),
        }
        if not scores["words"]:  # datatrove takes the mean of nothing
            del rules["mean_length"]
        check_scores(make, rules, scores, text)
        # One threshold of datatrove's for both, so the greater of the two.
        greater = max(scores["hashes"], scores["ellipses"])
        rule = {"both": (knob("max_symbol_word_ratio"), -1)}
        check_scores(make, rule, {"both": greater}, text)
        ours = stage.decide(scores)
        kept, reason, _ = passes(datatrove.GopherQualityFilter(), text)
        assert (not ours) == kept, (text[:60], ours)
        seen.add(reason)
    assert len(seen) >= 9  # nearly all of its reasons


def test_gopher_repetition(datatrove):
    off = {"dup_line_frac": 0, "dup_para_frac": 0, "dup_line_char_frac": 0,
           "dup_para_char_frac": 0, "top_n_grams": (), "dup_n_grams": ()}  # fmt: skip

    def make(knobs):
        return datatrove.GopherRepetitionFilter(**off | knobs)

    rules = {
        "lines": (lambda v: {"dup_line_frac": v}, -1),
        "line_characters": (lambda v: {"dup_line_char_frac": v}, -1),
        "paragraphs": (lambda v: {"dup_para_frac": v}, -1),
        "paragraph_characters": (lambda v: {"dup_para_char_frac": v}, -1),
    }
    for n in range(2, 5):
        rules[f"top_{n}_gram"] = (lambda v, n=n: {"top_n_grams": ((n, v),)}, -1)
    for n in range(5, 11):
        knob = (lambda v, n=n: {"dup_n_grams": ((n, v),)}, -1)
        rules[f"duplicate_{n}_grams"] = knob
    stage, seen, largest = gopher_repetition.make(), set(), {}
    for text in TEXTS:
        scores = stage.score(document(text))
        check_scores(make, rules, scores, text)
        kept, reason, _ = passes(datatrove.GopherRepetitionFilter(), text)
        assert (not stage.decide(scores)) == kept, text[:60]
        seen.add(reason)
        for name, value in scores.items():
            largest[name] = max(value, largest.get(name, 0))
    assert min(largest.values()) > 0.2 and len(seen) >= 6


def test_fineweb(datatrove):
    off = {"line_punct_thr": 0, "short_line_thr": 9, "char_duplicates_ratio": 9,
           "new_line_ratio": 1e9}  # fmt: skip

    def make(knobs):
        return datatrove.FineWebQualityFilter(**off | knobs)

    rules = {
        "ended_lines": (lambda v: {"line_punct_thr": v}, 1),
        "short_lines": (lambda v: {"short_line_thr": v}, -1),
        "repeated": (lambda v: {"char_duplicates_ratio": v}, -1),
        "newlines": (lambda v: {"new_line_ratio": v}, -1),
    }
    stage, seen = fineweb.make(), set()
    for text in TEXTS:
        scores = stage.score(document(text))
        check_scores(make, rules, scores, text)
        kept, reason, _ = passes(datatrove.FineWebQualityFilter(), text)
        assert (not stage.decide(scores)) == kept, text[:60]
        seen.add(reason)
    assert len(seen) == 5  # all, and kept


@pytest.mark.parametrize("least", [5, 40])
def test_c4(datatrove, least):
    seen = set()
    for text in TEXTS:
        kept, reason, left = passes(
            datatrove.C4QualityFilter(min_num_sentences=least), text
        )
        made = c4_lines.make().apply(document(text))
        stage = c4.make(least_sentences=least)
        ours = [d for d in made if not stage.decide(stage.score(d))]
        assert bool(ours) == kept, (text[:60], reason)
        assert not kept or ours[0].text == left
        seen.add(reason)
    assert seen == {"", "too_few_sentences", "lorem_ipsum", "curly_bracket"}


def test_c4_sentence_scores(datatrove):
    for text in TEXTS:
        if "{" in text or "lorem ipsum" in text.lower():
            continue
        for made in c4_lines.make().apply(document(text)):
            count = int(c4.make().score(made)["sentences"])
            for least, kept in ((count, True), (count + 1, False)):
                chosen = datatrove.C4QualityFilter(min_num_sentences=least)
                assert passes(chosen, text)[0] == kept


def test_the_same_punctuation(datatrove):
    import datatrove.utils.text as theirs

    assert set(PUNCTUATION) - set("\t\n") == theirs.PUNCTUATION_SET - set("\t\n")
    assert TERMINAL == theirs.TERMINAL_PUNCTUATION


def test_what_c4_removed_is_told():
    text = (
        "Home\nA line that stays here.\nTurn JavaScript on now.\nOK.\nIt uses cookies."
    )
    (made,) = c4_lines.make().apply(document(text))
    assert made.text == "A line that stays here."
    removed = {"ended": 1, "javascript": 1, "least_words": 1, "policy": 1}
    assert made.meta["c4_lines"] == removed
    assert c4_lines.make().apply(document("Home\nNews")) == []


@pytest.mark.parametrize(
    ("stage", "text", "knobs", "reason"),
    [
        (gopher_quality, "too short", {}, "fewer than 50 words"),
        (gopher_quality, "too short", {"least_words": 0, "least_stop_words": 0}, ""),
        (gopher_quality, "der und die " * 20, {"least_mean_length": 0,
          "stop_words": ("der", "und")}, ""),
        (gopher_quality, "der und die " * 20, {}, "fewer than 2 stop words"),
        (gopher_repetition, "a b\n" * 9, {}, "more than 30% repeated: lines"),
        (gopher_repetition, "", {}, "empty"),
        (fineweb, "Menu\n" * 9, {}, "less than 12% of lines end as a sentence"),
        (fineweb, "\n \n", {}, "empty"),
        (c4, "Use { here. It is. So. Is. It. Now.", {}, "curly bracket"),
        (c4, "One. Two.", {}, "fewer than 5 sentences"),
        (c4, "One. Two.", {"least_sentences": 2}, ""),
    ],
)  # fmt: skip
def test_reasons(stage, text, knobs, reason):
    made = stage.make(**knobs)
    assert made.decide(made.score(document(text))) == reason


def test_repetition_by_hand():
    text = "a b c d e a b c d e\nx"  # 21 characters
    scores = gopher_repetition.score(document(text))
    assert scores["top_2_gram"] == 2 * len("a b") / 21
    assert scores["duplicate_5_grams"] == 5 / 21
    assert scores["duplicate_6_grams"] == 0


def test_no_rule_fails_on_odd_texts():
    for text in ("", " ", "\n\n", "\x00", "\ud800 \udfff", "\u200b", "。" * 9):
        for stage in (gopher_quality, gopher_repetition, fineweb, c4):
            made = stage.make()
            assert isinstance(made.decide(made.score(document(text))), str)
        c4_lines.make().apply(document(text))
    kept = dataclasses.replace(document("One two three."), meta={"licence": "MIT"})
    assert c4_lines.make().apply(kept)[0].meta["licence"] == "MIT"


def test_words():
    table = {
        "Don't pay $10,000 -- yet.": "Don't|pay|$|10,000|--|yet|.",
        "हिन्दी में लिखा है।": "हिन्दी|में|लिखा|है|।",
        "漢字かな。": "漢|字|か|な|。",
        "ไทย": "ไ|ท|ย",
        "U.S. e.g. a_b foo-bar": "U.S|.|e.g|.|a_b|foo|-|bar",
        "cafe\u0301s d’été": "cafe\u0301s|d’été",
        "...... ?! «x»": "......|?|!|«|x|»",
    }
    for text, expected in table.items():
        assert "|".join(words(text)) == expected
    for text in TEXTS:
        assert "".join(words(text)) == re.sub(r"\s", "", text)


def test_sentences():
    table = {
        "": 0, " ": 0, "One": 1, "One. Two.": 2, "Mr. Smith came. He left": 2,
        "e.g. this one": 1, "J. S. Bach wrote. It is so!": 2, 
        "3.5 % of it. “So.” Yes.": 3, "他来了。他走了。": 2, "What?! No... but Yes.": 2,
    }  # fmt: skip
    assert {text: sentences(text) for text in table} == table
