"""Sums to solve, with their results: a task that a small model learns on a laptop.

Each pair of operands makes one record, `17+25=` and `{"answer": 42}`, for supervised
fine-tuning, and for learning by rewards, which see whether the number is right. The
group of a record is its pair, in either order, so that held-out sums were never seen.

    --config=configs/grpo.py
"""

import itertools
import operator
import zlib
from collections.abc import Callable, Iterator

from llm.document import Document, Source
from llm.errors import InputError
from llm.knobs import Count, Share

TINY = {"most": 4}
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def make(
    *,
    operators: str = "+",
    least: Count = 0,
    most: Count = 99,
    answer: str = '{{"answer": {}}}',
    plain: Share = 0.0,
    max_documents: Count = 0,
) -> Source:
    """Makes the source.

    Args:
      operators: some of + - *.
      least, most: of an operand.
      answer: how a result is written, {} is the number.
      plain: share of the sums of which the answer is the number alone, so that the form
        is a thing to be learned.
      max_documents: at most so many sums, evenly spread; 0 takes all.

    Raises:
      InputError: another operator, or no sums.
    """
    if not operators or set(operators) - set(_OPERATORS):
        raise InputError(
            got=f"data.source.operators {operators!r}",
            want=f"some of {' '.join(_OPERATORS)}",
        )
    if most < least:
        raise InputError(got=f"data.source.most {most}", want=f"{least} or more")
    try:
        if answer.format(1) == answer.format(2):
            raise IndexError
    except (IndexError, KeyError, ValueError) as error:
        raise InputError(
            got=f"data.source.answer {answer!r}", want="a text with one {} in it"
        ) from error

    def documents(skip: Callable[[str, str], None]) -> Iterator[Document]:
        del skip
        operands = range(least, most + 1)
        sums = list(itertools.product(operators, operands, operands))
        count = min(max_documents or len(sums), len(sums))
        for n in range(count):
            sign, a, b = sums[n * len(sums) // count]
            alone = zlib.crc32(f"{a}{sign}{b}".encode()) < plain * 2**32
            yield _document(sign, a, b, "{}" if alone else answer)

    return documents


def _document(sign: str, a: int, b: int, answer: str) -> Document:
    asked = f"{a}{sign}{b}="
    solved = answer.format(_OPERATORS[sign](a, b))
    text = asked + solved
    return Document(
        id=f"{a}{sign}{b}",
        text=text,
        source="arithmetic",
        group=f"{min(a, b)}{sign}{max(a, b)}",
        kind="record",
        raw_bytes=len(text.encode()),
        meta={"record": {"prompt": asked, "completion": solved}},
    )
