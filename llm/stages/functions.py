"""Records made of Python source: what a function is for, and the function.

Every documented function of a source file becomes a record: its signature and the first
paragraph of its docstring ask, its source without the docstring answers. `task` says
what is learned:

    write     a conversation: asked for the function, the assistant writes it
    describe  source and target: the function, and what it is for
    prefer    the same question with the function, chosen, and with the body of another
              function of the file under its signature, rejected

Real text and real tasks on every machine: it is what fine-tuning runs on here by
default. The group of a record is that of its file, so that no package is on both sides
of a split.
"""

import ast
import dataclasses
import textwrap
import warnings
from typing import Literal

from llm.document import Document, Map
from llm.knobs import Count

TINY = {"task": "write"}
TASKS = ("write", "describe", "prefer")


def make(
    *,
    task: Literal[tuple(TASKS)] = "write",
    shortest: Count = 60,
    longest: Count = 1200,
) -> Map:
    """Makes the stage.

    Args:
      task: what records are about, as above.
      shortest, longest: characters of a function; others are left out.
    """

    def apply(document: Document) -> list[Document]:
        made = []
        functions = [
            found
            for found in _functions(document.text)
            if shortest <= len(found.source) <= longest
        ]
        for number, found in enumerate(functions):
            other = functions[(number + 1) % len(functions)]
            record = _record(task, found, other)
            if record:
                made.append(_document(document, found, record))
        return made

    return Map(apply)


@dataclasses.dataclass(frozen=True)
class _Function:
    line: int
    signature: str
    doc: str
    body: str

    @property
    def source(self) -> str:
        return f"{self.signature}\n{self.body}"


def _record(task: str, found: _Function, other: _Function) -> dict | None:
    if task == "describe":
        return {"source": found.source, "target": found.doc}
    asked = f"Write the Python function `{found.signature}`\n\n{found.doc}"
    user = {"role": "user", "content": asked}
    if task == "write":
        answer = {"role": "assistant", "content": found.source}
        return {"messages": [user, answer]}
    if other.body == found.body:
        return None
    wrong = f"{found.signature}\n{other.body}"
    return {
        "prompt": [user],
        "chosen": [{"role": "assistant", "content": found.source}],
        "rejected": [{"role": "assistant", "content": wrong}],
    }


def _document(document: Document, found: _Function, record: dict) -> Document:
    text = f"{found.doc}\n\n{found.source}"
    return dataclasses.replace(
        document,
        id=f"{document.id}:{found.line}",
        text=text,
        kind="record",
        raw_bytes=len(text.encode("utf-8", errors="surrogatepass")),
        meta={**document.meta, "record": record},
    )


def _functions(text: str) -> list[_Function]:
    """The documented functions of a file, in their order; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in other people's strings
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines, made = text.split("\n"), []
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        doc = ast.get_docstring(node)
        if not doc or len(node.body) < 2 or not doc.strip():
            continue
        first, expression = node.body[1], node.body[0]
        start, stop = first.lineno - 1, node.end_lineno
        decorated = getattr(first, "decorator_list", [])
        start = min([start, *(d.lineno - 1 for d in decorated)])
        if start < expression.end_lineno or node.lineno == expression.lineno:
            continue  # on one line with its docstring
        body = textwrap.indent(textwrap.dedent("\n".join(lines[start:stop])), "    ")
        signature = textwrap.dedent(
            "\n".join(lines[node.lineno - 1 : expression.lineno - 1])
        ).rstrip()
        if not signature.endswith(":"):
            continue  # a comment stands there
        paragraph = " ".join(doc.strip().split("\n\n")[0].split())
        made.append(_Function(node.lineno, signature, paragraph, body))
    return sorted(made, key=lambda found: found.line)
