"""The standard library of the running interpreter: real text that is on every machine.

Three kinds of documents, in this order: the source files (`code`), reference text made
of the docstrings of modules written in C (`prose`; those of Python modules stand in
their source already), and the topics of `help()` (`prose`), which are most of the
language reference; a topic that stands in another one word for word is skipped. About
12 MB by people who cared, with no download and no licence to ask for; it differs
between Python versions, so nothing should pin figures to it.

The group of a document is its top-level module. `_pydecimal` and `_decimal` belong to
`decimal`: they hold the same functions twice, and a split must not tell them apart.
"""

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import io
import pathlib
import re
import sys
import sysconfig
import tokenize
import types
import warnings
from collections.abc import Callable, Iterator

from llm.document import Document, Source
from llm.errors import InputError

TINY = {"max_documents": 30}

_NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "lib-dynload"}
_TESTS = {"test", "tests", "idle_test", "testing"}
# They print to the terminal, open windows or serve only the tests of CPython.
_NO_IMPORT = re.compile(r"readline|_tkinter|_?xx\w*|_test\w*|_ctypes_test|__\w+__")
# Private modules whose public twin does not follow from their names.
_TWINS = {
    "_blake2": "hashlib", "_md5": "hashlib", "_sha1": "hashlib", "_sha2": "hashlib",
    "_sha256": "hashlib", "_sha3": "hashlib", "_sha512": "hashlib",
    "_compat_pickle": "pickle", "_elementtree": "xml", "pyexpat": "xml",
    "_frozen_importlib": "importlib", "_imp": "importlib", "_lsprof": "cProfile",
    "_posixshmem": "multiprocessing", "_posixsubprocess": "subprocess",
    "_py_abc": "abc", "_sre": "re", "sre_compile": "re", "sre_constants": "re",
    "sre_parse": "re", "_thread": "threading", "posix": "os", "nt": "os",
}  # fmt: skip

Skip = Callable[[str, str], None]


def make(*, max_documents: int = 0, tests: bool = False) -> Source:
    """Makes the source.

    Args:
      max_documents: at most so many documents, evenly spread over all; 0 takes all.
      tests: also read the test suites of the library.
    """

    def documents(skip: Skip) -> Iterator[Document]:
        folder = pathlib.Path(sysconfig.get_path("stdlib"))
        if not (folder / "os.py").is_file():
            raise InputError(
                got=f"no Python files in {folder}",
                want="the standard library as source files",
                do="use an interpreter that ships them",
            )
        topics = _topics(skip)
        found = [(_code, (folder, path)) for path in _files(folder, tests)]
        found += [(_reference, (name,)) for name in _compiled_modules()]
        found += [(_topic, item) for item in topics]
        count = min(max_documents or len(found), len(found))
        for i in range(count):
            read, arguments = found[i * len(found) // count]
            document = read(*arguments, skip)
            if document is not None:
                yield document

    return documents


def fold(module: str) -> str:
    """The public twin of a private top-level module: `_pydecimal` gives `decimal`."""
    if module in _TWINS:
        return _TWINS[module]
    if not module.startswith("_") or module.startswith("__"):
        return module
    public = {name for name in sys.stdlib_module_names if not name.startswith("_")}
    bare = module.removeprefix("_")
    for name in (bare, bare.removeprefix("py")):
        if name in public:
            return name
    # `_collections_abc` and `_weakrefset` lie beside `collections` and `weakref`.
    starts = [n for n in public if bare.startswith(n + "_")]
    starts += [n for n in public if bare.startswith(n) and len(n) >= 4]
    return max(starts, key=len, default=bare)


def _files(folder: pathlib.Path, tests: bool) -> list[str]:
    found = []
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).parts
        skipped = _NOT_LIBRARY.intersection(parts)
        if skipped or (not tests and _TESTS.intersection(parts[:-1])):
            continue
        if parts != ("pydoc_data", "topics.py"):
            found.append("/".join(parts))
    return sorted(found)


def _code(folder: pathlib.Path, path: str, skip: Skip) -> Document | None:
    content = (folder / path).read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        # `utf-8-sig` would hide a byte order mark that was read.
        text = content.decode(encoding.removesuffix("-sig"))
    except (SyntaxError, UnicodeDecodeError, LookupError):
        skip("does not decode", path)
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        skip("does not parse", path)
        return None
    if not text.strip():
        skip("empty", path)
        return None
    group = fold(path.partition("/")[0].removesuffix(".py"))
    return _document(path, text, group, "code")


def _topics(skip: Skip) -> list[tuple[str, str]]:
    """(name, text) of the topics, sorted, without those that stand in another one."""
    from pydoc_data.topics import topics

    # Words without the title and the line under it, which differs by level.
    words = {n: " ".join(topics[n].split("\n", 2)[-1].split()) for n in sorted(topics)}
    found = []
    for name, body in words.items():
        if any(
            body in other and (len(other) > len(body) or longer < name)
            for longer, other in words.items()
            if longer != name
        ):
            skip("part of another topic", _topic_id(name))
        else:
            found.append((name, topics[name]))
    return found


def _topic_id(name: str) -> str:
    return f"pydoc_data/topics.py#{name}"


def _topic(name: str, text: str, skip: Skip) -> Document:
    return _document(_topic_id(name), text, f"topics:{name}", "prose")


def _compiled_modules() -> list[str]:
    """Names of the modules without Python source."""
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    found = []
    for name in sorted({*sys.stdlib_module_names, *sys.builtin_module_names}):
        if _NO_IMPORT.fullmatch(name):
            continue
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        origin = spec.origin or "" if spec else ""
        if origin == "built-in" or origin.endswith(suffixes):
            found.append(name)
    return found


def _reference(name: str, skip: Skip) -> Document | None:
    """Module text, then signature and text of each public function, class, method."""
    path = f"docstrings/{name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
    except ImportError:
        skip("does not import", path)
        return None
    parts = [f"{name}\n{'=' * len(name)}", inspect.getdoc(module) or ""]
    for label, value in _public(module):
        if isinstance(value, type):
            # Else it is a class written in Python: its source is read.
            if not any(isinstance(v, types.FunctionType) for v in vars(value).values()):
                parts += _entry(f"class {label}", value, "")
                for method, member in _public(value):
                    if callable(member) or inspect.isdatadescriptor(member):
                        parts += _entry(f"{label}.{method}", member, "    ")
        elif inspect.isbuiltin(value):
            parts += _entry(f"{name}.{label}", value, "")
    parts = [part for part in parts if part]
    if len(parts) < 2:
        skip("no docstrings", path)
        return None
    return _document(path, "\n\n".join(parts) + "\n", fold(name), "prose")


def _public(owner: object) -> list[tuple[str, object]]:
    return [(n, v) for n, v in sorted(vars(owner).items()) if not n.startswith("_")]


def _entry(label: str, value: object, margin: str) -> list[str]:
    doc = inspect.getdoc(value)
    if not isinstance(doc, str) or not doc.strip():
        return []
    # The text as C declares it: `inspect.signature` evaluates the defaults, and its
    # result depends on which modules the process has loaded.
    signature = getattr(value, "__text_signature__", None) or ""
    signature = re.sub(r"\(\$\w+(, /)?(, )?", "(", signature)
    lines = [label + signature, *(f"    {line}" for line in doc.splitlines())]
    return ["\n".join((margin + line).rstrip() for line in lines)]


def _document(id: str, text: str, group: str, kind: str) -> Document:
    size = len(text.encode("utf-8", errors="surrogatepass"))
    return Document(id, text, "stdlib", group, kind, size)
