"""Files of the user's: read whole, in order, and refused where they are not text."""

import pytest

from llm.errors import InputError
from llm.sources import text


def read(**knobs):
    skipped = []
    documents = list(text.make(**knobs)(lambda *skip: skipped.append(skip)))
    return documents, skipped


def test_folder_in_order_with_groups(tmp_path):
    for name in ("b/two.txt", "b/sub/one.txt", "a.txt", ".hidden/x.txt", "c/.y.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(f"é {name}\r\n".encode())
    (tmp_path / "empty.txt").write_text(" \n")
    documents, skipped = read(path=str(tmp_path))
    assert [(d.id, d.group) for d in documents] == [
        ("a.txt", "a"), ("b/sub/one.txt", "b"), ("b/two.txt", "b"),
    ]  # fmt: skip
    assert documents[0].text == "é a.txt\r\n" and documents[0].raw_bytes == 10
    assert skipped == [("empty", "empty.txt")]
    assert [d.id for d in read(path=str(tmp_path), pattern="*.txt")[0]] == ["a.txt"]
    assert len(read(path=str(tmp_path), max_documents=2)[0]) == 2


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_pieces_of_a_file_join_to_it(tmp_path, newline):
    paragraphs = [f"line {i}{newline}more {i}{newline}" for i in range(300)]
    content = (newline * 2).join(paragraphs) + newline
    (tmp_path / "long.txt").write_bytes(content.encode())
    documents, _ = read(path=str(tmp_path / "long.txt"), piece_bytes=200)
    assert "".join(d.text for d in documents) == content
    assert len({d.group for d in documents}) == len(documents) > 10
    assert all(200 <= d.raw_bytes < 260 for d in documents[:-1])
    assert all(d.text.endswith(newline * 2) for d in documents[:-1])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"text\0more", "binary file.*NUL at byte 4"),
        (b"caf\xe9 au lait", "not UTF-8 at byte 3"),
        ("utf-16".encode("utf-16"), "not UTF-8|binary"),
        (b"\x89PNG\r\n\x1a\n\0\0", "binary file"),
    ],
)
def test_file_that_is_not_text_is_named(tmp_path, content, words):
    (tmp_path / "good.txt").write_text("fine")
    (tmp_path / "bad.bin").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read(path=str(tmp_path))
    assert "bad.bin" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "no/such/folder"])
def test_missing_path(path):
    with pytest.raises(
        InputError, match=r"want (a text file|text files).* or a folder"
    ):
        read(path=path)


def test_no_files(tmp_path):
    with pytest.raises(InputError, match="no text files"):
        read(path=str(tmp_path))


def test_links_to_folders_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.txt").write_text("a")
    (tmp_path / "top").mkdir()
    (tmp_path / "top/linked").symlink_to(tmp_path / "real")
    (tmp_path / "top/gone").symlink_to(tmp_path / "nothing")
    documents, skipped = read(path=str(tmp_path / "top"))
    assert [d.id for d in documents] == ["linked/a.txt"]
    assert skipped == [("no file, or a link to none", "gone")]


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("**/*", ["a.md", "b/c.md", "b/d/e.txt"]), ("*.md", ["a.md"]),
        ("**/*.md", ["a.md", "b/c.md"]), ("b/**/*.txt", ["b/d/e.txt"]),
        ("*/*", ["b/c.md"]), ("**/d/*", ["b/d/e.txt"]),
        ("", []), ("/a.md", []), ("x/**", []),
    ],
)  # fmt: skip
def test_patterns(tmp_path, pattern, names):
    """As pathlib has them, but that a bad one is one line."""
    (tmp_path / "b/d").mkdir(parents=True)
    for name in ("a.md", "b/c.md", "b/d/e.txt"):
        (tmp_path / name).write_text("x")
    if names:
        files = [p for p in tmp_path.glob(pattern) if p.is_file()]
        assert sorted(p.relative_to(tmp_path).as_posix() for p in files) == names
        assert [d.id for d in read(path=str(tmp_path), pattern=pattern)[0]] == names
    else:
        with pytest.raises(InputError, match="no text files that match"):
            read(path=str(tmp_path), pattern=pattern)
