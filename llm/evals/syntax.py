"""Whether a model writes Python: the share of `def` lines that it completes validly.

A sample counts only if the `def` line with its completion parses as one function with
at least two statements other than `pass` and a docstring, if the model ended it by
itself (by a line that is not indented, or the end of the text) within the limit, and if
it copies no 50 characters in a row from the training text. A sample that repeats
another does not count either. Beside the rate stand the share of distinct samples and
the rate of the held-out functions themselves under the same rules (their own text may
of course stand in the training text by chance).
"""

import ast
import hashlib
import textwrap
import warnings
from typing import Any

import numpy as np

from llm.evals import Context, Metric, Task
from llm.inference.requests import Generate, Generated
from llm.metrics import ratio

TINY = {"samples": 2, "max_tokens": 8}
METRICS = (
    Metric(
        "syntax_valid_rate", "sampled functions that count as valid", "higher",
        "{:.0%}", headline=True,
    ),
    Metric(
        "syntax_corpus_rate", "the corpus's own functions", "", "{:.0%}", headline=True
    ),
    Metric("syntax_distinct_rate", "distinct samples", "", "{:.0%}", headline=True),
    Metric("parses", "functions that count as valid", "higher", "{:.0%}"),
)  # fmt: skip
COPIED = 50  # characters in a row


def needs(**knobs: Any) -> set[str]:
    """Held-out functions, which a causal model continues."""
    del knobs
    return {"corpus", "likelihood"}


def make(
    *,
    samples: int = 100,
    max_tokens: int = 256,
    temperature: float = 0.5,
    context: Context,
) -> Task:
    """Completion of `samples` held-out `def` lines, spread evenly over functions."""
    functions = [
        f for d in context.documents if d.kind == "code" for f in found(d.text)
    ]
    count = min(samples, len(functions))
    chosen = [functions[i * len(functions) // count] for i in range(count)]

    def request(function):
        head, _ = function
        return [Generate(head, r"\n(?=\S)", max_tokens, temperature)]

    def measure(function, answers):
        head, body = function
        (answer,) = answers
        wrong = fault(head, answer)
        real = Generated(
            body, "stop" if context.count_tokens(body) <= max_tokens else "length"
        )
        return {
            "id": hashlib.sha256((head + body).encode()).hexdigest()[:12],
            "prompt": head,
            "completion": answer.text,
            "reason": wrong,
            "values": {"parses": (float(not wrong), 1.0)},
            "corpus_reason": fault(head, real),
        }

    def summarise(figures):
        if not figures:  # prose: nothing was asked, so nothing is said
            return {"syntax_samples": 0}
        copied = copies([f["completion"] for f in figures], context.training_texts())
        seen = set()
        for figure, is_copy in zip(figures, copied, strict=True):
            if is_copy and not figure["reason"]:
                figure["reason"] = f"copies {COPIED} characters of training text"
            if figure["completion"] in seen and not figure["reason"]:
                figure["reason"] = "repeats another sample"
            seen.add(figure["completion"])
        return totals(figures)

    return Task(chosen, lambda f: request(f), measure, summarise, on_top=True)


def found(code: str) -> list[tuple[str, str]]:
    """(`def` line, body) of the top-level functions of a module.

    The line break stands with the body: tokens often hold it together with the
    indentation that follows, and a prompt that ends inside a token is no fair question.
    """
    # Not splitlines: Python counts lines by their line breaks alone.
    lines = [line + "\n" for line in code.split("\n")]
    functions = []
    for node in _parsed(code):
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno > node.lineno:
            # The signature ends in the line before the body, less comments between.
            start, first = node.lineno - 1, node.body[0].lineno - 1
            head = "".join(lines[start:first])
            body = "".join(lines[first : node.end_lineno])
            if head.endswith(":\n"):
                functions.append((head[:-1], "\n" + body))
    return functions


def _parsed(code: str) -> list[ast.stmt]:
    """The statements of a module; none where it is not Python of this version."""
    try:
        return _parse(code)
    except _NOT_PYTHON:
        return []


_NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)


def _parse(code: str) -> list[ast.stmt]:
    with warnings.catch_warnings():
        # Of invalid escapes, and of what a model writes.
        warnings.simplefilter("ignore")
        return ast.parse(code).body


def fault(head: str, answer: Generated) -> str:
    """Why a completion does not count; '' if it does."""
    if answer.stop_reason == "length":
        return "did not end within the limit"
    try:
        body = _parse(head + answer.text)
    except _NOT_PYTHON as error:
        return f"does not parse: {getattr(error, 'msg', error)}"
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
        return "is not one function"
    statements = [n for n in ast.walk(body[0]) if isinstance(n, ast.stmt)]
    real = [s for s in statements[1:] if not _says_nothing(s)]
    return "" if len(real) >= 2 else "has fewer than two statements"


def _says_nothing(statement: ast.stmt) -> bool:
    is_text = isinstance(statement, ast.Expr) and isinstance(
        statement.value, ast.Constant
    )
    return is_text or isinstance(statement, ast.Pass)


def totals(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates over samples, and some samples to look at."""
    count = max(len(figures), 1)
    valid = [(float(not f["reason"]), 1.0) for f in figures]
    interval = {"syntax_interval": list(ratio(valid)[1:3])} if figures else {}
    return {
        "syntax_valid_rate": sum(not f["reason"] for f in figures) / count,
        "syntax_corpus_rate": sum(not f["corpus_reason"] for f in figures) / count,
        "syntax_distinct_rate": len({f["completion"] for f in figures}) / count,
        "syntax_samples": len(figures),
        **interval,
        "syntax_examples": [
            {
                "prompt": f["prompt"],
                "completion": textwrap.shorten(f["completion"], 2000, placeholder="...")
                if len(f["completion"]) > 2000
                else f["completion"],
                "valid": not f["reason"],
                "reason": f["reason"],
            }
            for f in figures[:20]
        ],
    }


def copies(samples: list[str], training_texts: list[str]) -> list[bool]:
    """Whether each sample shares COPIED characters in a row with any training text.

    Windows are compared by a polynomial hash modulo 2**64, and a hit is looked up.
    """
    wanted = {}
    for number, sample in enumerate(samples):
        for start, value in enumerate(_window_hashes(sample)):
            wanted.setdefault(int(value), []).append((number, start))
    known = np.array(sorted(wanted), np.uint64)
    hit = [False] * len(samples)
    if not len(known):
        return hit
    for text in training_texts:
        hashes = _window_hashes(text)
        if not len(hashes):
            continue
        at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        for value in np.unique(hashes[known[at] == hashes]):
            for number, start in wanted[int(value)]:
                hit[number] |= samples[number][start : start + COPIED] in text
    return hit


_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)


def _window_hashes(text: str) -> np.ndarray:
    """uint64 hash of every window of COPIED characters."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    if len(codes) < COPIED:
        return np.zeros(0, np.uint64)
    powers = _powers(_BASE, len(codes))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * powers)])
    windows = sums[COPIED:] - sums[:-COPIED]
    return windows * _powers(_INVERSE, len(windows))


def _powers(base: int, count: int) -> np.ndarray:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors)
