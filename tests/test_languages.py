"""One name for each language, whoever wrote it."""

import pytest

from llm.corpus import record_fields
from llm.text import languages


@pytest.mark.parametrize(
    "tag, want",
    [
        ("en", "en"), ("en-US", "en"), ("EN", "en"), ("en_GB.UTF-8", "en_GB.UTF-8"),
        ("eng", "en"), ("ger", "de"), ("deu", "de"), ("chi", "zh"), ("zho", "zh"),
        ("zh-Hant-TW", "zh"), ("zh_Hans", "zh"), ("haw", "haw"), ("x", "x"),
        ("English", "English"), ("", ""), (" fr ", "fr"), ("ces", "cs"), ("cze", "cs"),
        ("gre", "el"), ("ell", "el"), ("her", "hz"), ("heb", "he"), ("hye", "hy"),
    ],
)  # fmt: skip
def test_codes(tag, want):
    assert languages.code(tag) == want


def test_records_have_them_and_code_does_not():
    record = {"text": "some words", "language": "eng"}

    def said(kind):
        skip = pytest.fail
        knobs = record_fields.Knobs(kind=kind)
        made = record_fields.document(record, "a:1", knobs, "jsonl", skip)
        return made.meta["language"]

    assert said("prose") == "en" and said("code") == "eng"


def test_the_table_agrees_with_langid():
    """The two letters that py3langid gives stay, and a table for three knows them."""
    langid = pytest.importorskip("py3langid")
    names = {name for name, _ in langid.rank("some words") if len(name) == 2}
    assert len(names) > 90 and {languages.code(name) for name in names} == names
    assert names <= set(languages._SHORT.values())
