"""Items from files of every kind, and one line for what is wrong with them."""

import json
import zipfile

import pytest

from llm.data import eval_records, fewshot
from llm.errors import InputError


def write(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


ROWS = [
    {"q": "Who?", "a": "Ann, B.", "n": 1},
    {"q": 'He said "x"', "a": "é\nf", "n": 2},
]
FORMS = {
    "x.jsonl": "\n".join(map(json.dumps, ROWS)) + "\n\n",
    "x.json": json.dumps(ROWS, indent=2),
    "x.csv": '\ufeffq,a,n\r\nWho?,"Ann, B.",1\r\n"He said ""x""","é\nf",2\r\n',
    "x.tsv": 'q\ta\tn\nWho?\tAnn, B.\t1\n"He said ""x"""\t"é\nf"\t2\n',
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(tmp_path, name):
    got = eval_records.read(
        write(tmp_path / name, FORMS[name]), fields="question=q,both=q+a"
    )
    assert [i.id for i in got.items] == [f"{name}:1", f"{name}:2"]
    for item, row in zip(got.items, ROWS, strict=True):
        assert (item["question"], item["a"]) == (row["q"], row["a"])
        assert item["both"] == [row["q"], row["a"]] and int(item["n"]) == row["n"]
    assert len(got.sha256) == 64


def test_folders_patterns_and_archives(tmp_path):
    for part in ("test", "dev"):
        (tmp_path / "m" / part).mkdir(parents=True)
        for name in ("law", "art"):
            text = f"{name} {part},x,y,A\n" * 3
            write(tmp_path / "m" / part / f"{name}_{part}.csv", text)
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for file in sorted((tmp_path / "m").rglob("*.csv")):
            archive.write(file, file.relative_to(tmp_path))
    columns = "question,A,B,answer"
    for place in ("m", "m.zip", "m.zip/m"):
        path = f"{tmp_path / place}/**/*_test.csv"
        got = eval_records.read(path, columns=columns).items
        assert [i["_file"] for i in got] == ["art"] * 3 + ["law"] * 3
        assert got[0].id == "art_test.csv:1" and got[0]["question"] == "art test"
    assert len(eval_records.read(str(tmp_path / "m"), columns=columns).items) == 12
    got = fewshot.asked(
        f"{tmp_path}/m.zip/**/*_test.csv", columns=columns, shots=2, group="_file",
        shots_path=f"{tmp_path}/m.zip/**/*_dev.csv", limit=2,
    )  # fmt: skip
    assert [i["_file"] for i in got.items] == ["art", "law"]
    assert [[s.id for s in some] for some in got.shots] == [
        ["art_dev.csv:1", "art_dev.csv:2"], ["law_dev.csv:1", "law_dev.csv:2"],
    ]  # fmt: skip


def test_shots_of_the_same_file_are_not_asked(tmp_path):
    path = write(tmp_path / "x.jsonl", "".join(f'{{"n": {n}}}\n' for n in range(10)))
    got = fewshot.asked(path, shots=3)
    assert [i["n"] for i in got.items] == [3, 4, 5, 6, 7, 8, 9]
    assert [[s["n"] for s in some] for some in got.shots] == [[0, 1, 2]] * 7
    shuffled = fewshot.asked(path, shots=3, seed=1)
    assert shuffled.shots[0] == fewshot.asked(path, shots=3, seed=1).shots[0]
    assert shuffled.shots[0] != got.shots[0]
    assert [i["n"] for i in fewshot.asked(path, limit=4).items] == [0, 2, 5, 7]
    with pytest.raises(InputError, match="all of them shots"):
        fewshot.asked(path, shots=10)


def test_templates():
    item = eval_records.Item("f:1", {"question": "2 {x}", "n": 3})
    assert (
        eval_records.filled("Q: {question} {n}{m} {}", item, {"m": "!"})
        == "Q: 2 {x} 3! {}"
    )
    with pytest.raises(InputError, match="f:1 without the field 'title'"):
        eval_records.filled("{title}", item)


BAD = [
    ("x.jsonl", "", "no items in"),
    ("x.jsonl", '{"a": 1}\n{"a": ', "x.jsonl, line 2, which is not JSON"),
    ("x.jsonl", "[1, 2]", "x.jsonl:1: 1"),
    ("x.jsonl", '"text"\n', "want a record"),
    ("x.csv", "a,b\n1,2\n3\n", "x.csv, row 2, with 1 columns; want 2: a, b"),
    ("x.csv", 'a,b\n1,"2\n', "which is no table"),
    ("x.zip", "no zip", "want a whole zip archive"),
]


@pytest.mark.parametrize("name, text, message", BAD)
def test_bad_files(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        eval_records.read(write(tmp_path / name, text))


def test_bad_input(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match="not UTF-8 at byte 7"):
        eval_records.read(str(tmp_path / "x.jsonl"))
    with pytest.raises(InputError, match="nothing at"):
        eval_records.read(str(tmp_path / "nowhere" / "*.csv"))
    with pytest.raises(InputError, match="no path of items"):
        eval_records.read("")
    path = write(tmp_path / "y.jsonl", '{"a": 1}')
    with pytest.raises(InputError, match="without the field 'b'; want one of a"):
        eval_records.read(path, fields="question=b")
    with pytest.raises(InputError, match="MINE=THEIRS"):
        eval_records.read(path, fields="question")
