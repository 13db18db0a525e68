"""The page of a corpus says what became of its documents, with figures that add up."""

import hashlib
import html
import json
import re

import pytest
from page_parser import Page

from llm import config
from llm.errors import InputError
from llm.reports import data_card
from llm.workloads import prepare_data, train_tokenizer

CONFIGS = __file__.replace("tests/test_data_card.py", "configs/x.py")
ASKED = "how many apples has she if he gives her seven of his nine red apples today"
SHORT = "too short a question"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    texts = [f"Chapter {n}. " + f"Sentence {n} says a thing. " * 40 for n in range(30)]
    texts += [texts[3], texts[3], f"Before. {ASKED}? After. " + "Filler words. " * 20]
    records = (
        json.dumps(
            {
                "text": text,
                "language": "en-GB" if n % 2 else "eng",
                **({"license": "mit"} if n % 3 else {}),
                "timestamp": f"2026-0{1 + n % 2}-11T10:00:{n:02}Z",
            }
        )
        for n, text in enumerate(texts)
    )
    (folder / "data.jsonl").write_text("\n".join(records))
    items = [{"q": ASKED}, {"q": SHORT}, {"q": ASKED.replace("apples", "<b>plums</b>")}]
    (folder / "items.jsonl").write_text("\n".join(json.dumps(item) for item in items))
    path = f"debug,text=jsonl:{folder / 'data.jsonl'}"
    c = config.load(CONFIGS, "quickstart", path)
    c.data.stages = ("normalise", "decontaminate", "exact_dedup")
    c.data.stage.decontaminate.path = str(folder / "items.jsonl")
    c.tokenizer.kind = "char"
    prepare_data.run(c, folder)
    train_tokenizer.run(c, folder)
    return folder


def words(page):
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def test_what_the_card_says(run):
    page = (run / "data_card.html").read_text()
    said = words(page)
    for told in (
        "2 items were looked for, 1 found; 1 are too short",
        "items.jsonl:1 1 ",  # the item, one document, and its runs
        "sets of copies 1",
        "exact_dedup",
        '"kind": "char"',  # the settings of the tokenizer, too
        "names and sizes of the files read",
    ):
        assert told in said, told
    assert re.search(r"Chapter 3\. Sentence.* 3 ", said)  # the largest set of copies
    prepared = json.loads((run / "prepare_data.json").read_text())
    assert prepared["files"] in page and prepared["hashes"]["corpus"] in page
    assert set(prepared["facts"]["language"]) == {"en"}
    licences = {name: n for name, (n, _) in prepared["facts"]["licence"].items()}
    assert licences == {"mit": 20, "": 10}
    sizes = [part["bytes"] for part in prepared["splits"].values()]
    assert sum(size for _, size in prepared["facts"]["licence"].values()) == sum(sizes)
    assert re.search(r"licence documents text mit 20 [\d.]+ KiB not known 10 ", said)
    # Of the documents that are left: two were copies, and one had an item in it.
    months = prepared["facts"]["timestamp"]
    assert {name: n for name, (n, _) in months.items()} == {
        "2026-01": 15,
        "2026-02": 15,
    }
    files = [
        f for f in sorted((run / "tokens").rglob("*")) if f.name != "manifest.json"
    ]
    assert len([f for f in files if f.is_file()]) >= 9
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() in page, file
    assert "<script" not in page and "<b>plums" not in page


def test_names_of_the_card_are_text(run, tmp_path):
    evil = """'"><script>a & b</script>"""
    for name in ("prepare_data.json", "train_tokenizer.json"):
        text = (run / name).read_text()
        for word in ("jsonl", "en", "mit", "exact_dedup", "train"):
            text = text.replace(f'"{word}"', json.dumps(word + evil))
        (tmp_path / name).write_text(text)
    page = Page(data_card.write(tmp_path).read_text())
    assert "script" not in page.tags and page.text.count(evil) > 10


def test_stages_add_up(run):
    stages = json.loads((run / "prepare_data.json").read_text())["stages"]
    assert [stage["documents_in"] for stage in stages] == [33, 33, 32]
    assert stages[-1]["documents_out"] == 30
    for stage in stages:
        dropped = sum(entry["documents"] for entry in stage["dropped"].values())
        assert stage["documents_in"] - dropped == stage["documents_out"]


def test_no_corpus(tmp_path):
    with pytest.raises(InputError, match=r"no prepare_data\.json"):
        data_card.write(tmp_path)
