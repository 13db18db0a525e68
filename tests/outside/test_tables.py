"""Rows and ids of tables that others wrote: none is cut or lost without a word."""

import json

import pytest

from llm import registry
from llm.corpus import runner

MORE = "row with more cells than the first row has names"
FEWER = "row with fewer cells than the first row has names, kept"


def read(path, name="csv", **knobs):
    skipped = []
    source = registry.build("sources", {"name": name, "path": str(path), **knobs})
    return list(source(lambda *skip: skipped.append(skip))), skipped


@pytest.mark.parametrize(
    ("row", "text", "reason"),
    [
        ("1,Hello, world", None, MORE), ('1,"Hello, world"', "Hello, world", ""),
        ("1,Hello,", "Hello", ""), ("1,Hello,,,", "Hello", ""),
        ("1,Hello,, world", None, MORE), ('1,"a" b, c', None, "damaged"),
        ("Hello", None, "no text in the field 'text'"), ("1,,world", None, MORE),
    ],
)  # fmt: skip
def test_cells_beyond_the_names_are_not_cut(tmp_path, row, text, reason):
    (tmp_path / "a.csv").write_text(f"id,text\n0,before\n{row}\n2,behind\n")
    documents, skipped = read(tmp_path / "a.csv")
    between = [d.text for d in documents if d.text not in ("before", "behind")]
    assert between == ([text] if text else []) and len(documents) >= 2
    if reason:
        assert skipped[-1][1].startswith("a.csv:3")
        assert skipped[-1][0].startswith(reason)
    else:
        assert not skipped


def test_cells_that_lack_are_counted(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tid\turl\none\t1\tu\ntwo\t2\nthree\n")
    documents, skipped = read(tmp_path / "a.tsv")
    assert [d.text for d in documents] == ["one", "two", "three"]
    assert skipped == [(FEWER, "a.tsv:3"), (FEWER, "a.tsv:4")]


def test_a_column_that_stands_twice_is_not_guessed(tmp_path):
    (tmp_path / "a.csv").write_text("text,id,text\nfirst,1,second\n")
    (tmp_path / "b.csv").write_text("note,id,note,text\nx,1,y,third\n")
    documents, skipped = read(tmp_path)
    assert [d.text for d in documents] == ["third"]
    assert skipped == [("two columns 'text' in the first row", "a.csv")]


def write(folder, name, number, texts):
    rows = [{"id": n, "text": text} for n, text in enumerate(texts)]
    if name == "jsonl":
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{number}.jsonl").write_text(lines)
    elif name == "csv":
        lines = "".join(f"{row['id']},{row['text']}\n" for row in rows)
        (folder / f"{number}.csv").write_text("id,text\n" + lines)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(
            pyarrow.Table.from_pylist(rows), folder / f"{number}.parquet"
        )


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_ids_that_count_the_rows_of_a_file_repeat_in_the_next(tmp_path, name):
    for number in range(3):
        write(tmp_path, name, number, [f"{number} is {n}" for n in range(4)])
    documents, skipped = read(tmp_path, name)
    assert len({d.id for d in documents}) == len(documents) == 12 and not skipped
    done = runner.run(
        runner.Settings(tmp_path / "work", {"name": name, "path": str(tmp_path)}, [])
    )
    assert len(list(done.documents())) == 12 and not done.skipped


@pytest.mark.parametrize("name", ["jsonl", "csv", "parquet"])
def test_an_id_twice_in_one_file_is_counted(tmp_path, name):
    rows = [{"id": "a", "text": "one"}, {"id": "a", "text": "two"}]
    if name == "jsonl":
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    elif name == "csv":
        (tmp_path / "a.csv").write_text("id,text\na,one\na,two\n")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    documents, skipped = read(tmp_path, name)
    assert [d.text for d in documents] == ["one"]
    assert skipped == [("id seen before", f"a.{name}#a")]
