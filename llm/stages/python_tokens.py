"""Labels the tokens of Python code, for the objective `classify` at every token.

Python's own tokenizer says what each stretch of a file is: comment, keyword, name,
number, operator or string; this is what an editor colours. Documents that are not code,
or that Python does not read, are dropped. Stages that change a text must come before.
"""

import dataclasses
import io
import keyword
import tokenize

from llm.document import Document, Map

TINY = {}
NAMES = ("comment", "keyword", "name", "number", "operator", "string")
_KINDS = {
    tokenize.COMMENT: "comment",
    tokenize.NUMBER: "number",
    tokenize.OP: "operator",
    tokenize.STRING: "string",
}
# From Python 3.12 on, an f-string is several tokens.
_KINDS |= {
    getattr(tokenize, name): "string"
    for name in ("FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END")
    if hasattr(tokenize, name)
}


def make() -> Map:
    """Makes the stage."""

    def apply(document: Document) -> list[Document]:
        if document.kind != "code":
            return []
        try:
            stretches = _stretches(document.text)
        except (tokenize.TokenError, SyntaxError):
            return []
        meta = {**document.meta, "labels": stretches}
        return [dataclasses.replace(document, meta=meta)]

    return Map(apply)


def _stretches(text: str) -> list[list]:
    """[start, end, kind] of every token that has a kind, in characters."""
    # Lines as the tokenizer cuts them, which is at newlines alone.
    starts = [0]
    for line in io.StringIO(text):
        starts.append(starts[-1] + len(line))
    found = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = _KINDS.get(token.type)
        if token.type == tokenize.NAME:
            kind = "keyword" if keyword.iskeyword(token.string) else "name"
        if kind:
            (row, column), (last_row, last_column) = token.start, token.end
            begin, end = starts[row - 1] + column, starts[last_row - 1] + last_column
            found.append([begin, end, kind])
    return found
