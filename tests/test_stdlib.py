"""The standard library as documents: which, in what order, and in which group."""

import ast
import os
import subprocess
import sys
import warnings

import data_config
import pytest

from llm.errors import InputError
from llm.sources import stdlib


@pytest.fixture(scope="module")
def library():
    documents, skipped = data_config.library()
    return {document.id: document for document in documents}, skipped


@pytest.mark.parametrize(
    ("module", "public"),
    [
        ("email", "email"), ("_pydecimal", "decimal"), ("_pyio", "io"), ("_io", "io"),
        ("_strptime", "strptime"), ("_weakrefset", "weakref"), ("_thread", "threading"),
        ("_collections_abc", "collections"), ("_py_abc", "abc"), ("_sre", "re"),
        ("__future__", "__future__"), ("_osx_support", "osx_support"), ("posix", "os"),
    ],
)  # fmt: skip
def test_private_modules_fold_into_their_public_twin(module, public):
    assert stdlib.fold(module) == public


def test_code_is_the_files(library):
    documents, _ = library
    header = documents["email/header.py"]
    assert (header.kind, header.group, header.source) == ("code", "email", "stdlib")
    import email.header

    with open(email.header.__file__, "rb") as file:
        content = file.read()
    assert header.text.encode() == content and header.raw_bytes == len(content)
    assert documents["_pydecimal.py"].group == documents["docstrings/_decimal"].group


def test_code_documents_parse(library):
    documents, _ = library
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for document in list(documents.values())[::10]:
            if document.kind == "code":
                ast.parse(document.text)


def test_what_is_left_out(library):
    documents, skipped = library
    assert not any("/test/" in f"/{id}" or "/tests/" in f"/{id}" for id in documents)
    assert not any("site-packages" in id or "__pycache__" in id for id in documents)
    assert "pydoc_data/topics.py" not in documents
    assert ("empty", "urllib/__init__.py") in skipped


def test_topics_that_stand_in_another_one_are_skipped(library):
    documents, skipped = library
    topics = {i: d.text for i, d in documents.items() if "topics.py#" in i}
    assert "pydoc_data/topics.py#compound" in topics
    # The whole of the `with` statement stands in the chapter on compound statements.
    assert ("part of another topic", "pydoc_data/topics.py#with") in skipped
    assert len(topics) > 50
    bodies = {
        i: " ".join(text.split("\n", 2)[-1].split()) for i, text in topics.items()
    }
    for a, body in bodies.items():
        assert not any(body in other for b, other in bodies.items() if b != a)


def test_topics_and_reference_are_prose(library):
    documents, _ = library
    topic = documents["pydoc_data/topics.py#lambda"]
    assert (topic.kind, topic.group) == ("prose", "topics:lambda")
    assert "anonymous functions" in topic.text
    reference = documents["docstrings/math"]
    assert (reference.kind, reference.group) == ("prose", "math")
    assert "math.sqrt(x, /)\n    Return the square root of x.\n" in reference.text
    assert "str.upper()" in documents["docstrings/builtins"].text
    assert " at 0x" not in reference.text


def test_every_group_is_folded_and_raw_bytes_are_utf8(library):
    documents, _ = library
    for document in documents.values():
        assert document.raw_bytes == len(document.text.encode())
        if not document.group.startswith("topics:"):
            assert stdlib.fold(document.group) == document.group


def test_order_is_the_same_in_another_process():
    script = (
        "import hashlib\nfrom llm.sources import stdlib\nwhole = hashlib.sha256()\n"
        "for d in stdlib.make(max_documents=90)(lambda *a: None):\n"
        "    whole.update(repr((d.id, d.text, d.group)).encode())\n"
        "print(whole.hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(seen) == 1


def test_max_documents_is_spread(library):
    few = list(stdlib.make(max_documents=40)(lambda *skip: None))
    assert 30 <= len(few) <= 40
    assert {document.kind for document in few} == {"code", "prose"}
    assert [d.id for d in few] == [id for id in library[0] if id in {d.id for d in few}]


def test_tests_are_read_when_asked_for():
    folder = stdlib.pathlib.Path(stdlib.sysconfig.get_path("stdlib"))
    with_tests = stdlib._files(folder, tests=True)
    assert set(stdlib._files(folder, tests=False)) < set(with_tests)


def test_files_that_do_not_decode_or_parse_are_counted(tmp_path, monkeypatch):
    (tmp_path / "os.py").write_text("x = 1\n")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    (tmp_path / "old.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    skipped = []
    documents = list(stdlib.make()(lambda *skip: skipped.append(skip)))
    code = {d.id: d for d in documents if d.kind == "code"}
    assert set(code) == {"os.py", "old.py"}
    assert code["old.py"].raw_bytes == len("# -*- coding: latin-1 -*-\nx = 'é'\n") + 1
    assert {("does not parse", "broken.py"), ("does not decode", "latin.py")} <= set(
        skipped
    )


def test_interpreter_without_source_files(tmp_path, monkeypatch):
    monkeypatch.setattr(stdlib.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(InputError, match="no Python files"):
        list(stdlib.make()(lambda *skip: None))
