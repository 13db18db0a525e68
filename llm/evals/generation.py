r"""What a model writes, against references: exact match, F1, BLEU, chrF, ROUGE.

The answer is what the model generates after the prompt, up to a stop; of it, and of the
reference, `extract` takes a part: `number`, the last number or what stands in the last
\boxed{}, or a regular expression, such as what follows `####` in a worked solution
(GSM8K). `answered` is the share of items in which it found one. `chat=True` asks by the
model's chat template.

`exact_match` and `f1` (of words, as in SQuAD, and of characters in scripts without
spaces) are always there. Numbers are compared as numbers (`llm/text/numerals.py`),
other texts in lower case, without punctuation and articles; `exact=True` compares texts
as they are. `metrics` adds bleu, chrf (of sacrebleu, whose signature is kept) and rouge
(of rouge-score), which need the extra `eval`. An item's reference may be a list: the
best one counts.

Fields: those of the templates, and `answer`. Without a path, the items are the records
of the split that the run held out, of sources with targets or of prompts with
completions: `{question}` and `{answer}` are these.
"""

import importlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from llm.data import fewshot as solved
from llm.data.eval_records import Item, filled, spread
from llm.errors import InputError
from llm.evals import Context, Metric, Task
from llm.inference.requests import Generate, Generated
from llm.metrics import Figure, of_items, summary
from llm.text import answer_text

TINY: dict[str, Any] = {"max_tokens": 8, "limit": 2}
_KNOWN = ("bleu", "chrf", "rouge")


def _pooled(name: str) -> Callable:
    """BLEU or chrF of sacrebleu, from what it counts in each sentence."""

    def of(pairs):
        metric = _metric(name)
        columns = _columns([a["references"] for a, _ in pairs])
        counted = [
            np.array(
                metric._extract_corpus_statistics(
                    [pair[run]["extracted"] for pair in pairs], columns
                ),
                float,
            )
            for run in (0, 1)
        ]
        return lambda run, counts_N: (
            metric._compute_score_from_stats((counts_N @ counted[run]).tolist()).score
        )

    return of


METRICS = (
    Metric("exact_match", "exact match", "higher", "{:.1%}", headline=True),
    Metric("f1", "F1 of words", "higher", "{:.1%}", headline=True),
    Metric("bleu", "BLEU", "higher", "{:.1f}", headline=True, pooled=_pooled("bleu")),
    Metric("chrf", "chrF", "higher", "{:.1f}", headline=True, pooled=_pooled("chrf")),
    Metric("chrf_sentence", "chrF of sentences", "higher", "{:.1f}"),
    Metric("rouge1", "ROUGE-1", "higher", "{:.3f}"),
    Metric("rouge2", "ROUGE-2", "higher", "{:.3f}"),
    Metric("rougeL", "ROUGE-L", "higher", "{:.3f}"),
)


def needs(*, path: str = "", **knobs: Any) -> set[str]:
    """Without a file of items, the records of the held-out split."""
    del knobs
    return set() if path else {"corpus"}


def make(
    *,
    path: str = "",
    fields: str = "",
    columns: str = "",
    prompt: str = "{question}",
    answer: str = "{answer}",
    preface: str = "",
    separator: str = "\n\n",
    shots: int = 0,
    shots_path: str = "",
    group: str = "",
    seed: int = 0,
    limit: int = 0,
    chat: bool = False,
    system: str = "",
    stop: str = "",
    max_tokens: int = 128,
    temperature: float = 0.0,
    extract: str = "",
    target: str = "",
    exact: bool = False,
    point: str = ".",
    metrics: tuple[str, ...] = (),
    context: Context,
) -> Task:
    r"""Generation.

    Args:
      path, fields, columns: of the items, as in `llm/data/eval_records.py`.
      prompt, answer: templates of what is asked, and of a shot's answer.
      preface: stands before all.
      chat, system: whether the prompt is what a user says, and shots are turns.
      stop: regular expression that ends an answer.
      extract: 'number', or a regular expression whose last match, of its first group if
        it has one, is taken of what was generated: "#### (.+)". No match is no answer.
      target: the same for the reference; '' is `extract`.
      exact: whether case, punctuation, articles and the way to write a number count.
      point: the decimal point of numbers; the other of . and , separates thousands.
      metrics: more figures: bleu, chrf, rouge.
    """
    _check(extract, target, stop, metrics, point)
    if (preface and chat) or (system and not chat):
        raise InputError(
            got="preface with chat" if chat else "system without chat",
            want="system for a conversation, preface for a text",
        )
    if path:
        asked = solved.asked(
            path, fields=fields, columns=columns, shots=shots, shots_path=shots_path,
            group=group, seed=seed, limit=limit,
        )  # fmt: skip
    else:
        asked = _held_out(context.documents, limit)
    pairs = list(zip(asked.items, asked.shots, strict=True))
    references = {item.id: _references(item, target or extract) for item in asked.items}

    def text(item, before):
        if chat:
            turns = [("system", system)] if system else []
            for x in before:
                turns += [("user", filled(prompt, x)), ("assistant", filled(answer, x))]
            return (*turns, ("user", filled(prompt, item)))
        parts = [filled(prompt, x) + filled(answer, x) for x in before]
        parts = [*([filled(preface, item)] if preface else []), *parts]
        return separator.join([*parts, filled(prompt, item)])

    def requests(pair):
        return [Generate(text(*pair), stop, max_tokens, temperature)]

    def measure(pair, answers: list[Generated]):
        item, (made,) = pair[0], answers
        said = made.text.strip()
        found = answer_text.extracted(said, extract)
        known = references[item.id]
        return {
            "id": item.id,
            "input": filled(prompt, item)[-600:],
            "target": known[0],
            "output": said,
            "extracted": found,
            "stop_reason": made.stop_reason,
            "references": known,
            "content": item.digest,
            "values": _values(found, known, exact, metrics, point)
            | {
                "answered": (float(bool(found)), 1.0),
                "ended": (float(made.stop_reason != "length"), 1.0),
            },
        }

    def summarise(figures):
        found = of_items(figures)
        about = {}
        for name in metrics:
            if name != "rouge":
                figure, signature = _corpus(name, figures)
                found[name] = figure
                about[f"{name}_signature"] = signature
        return summary(found) | about

    about = {"prompt": prompt, "answer": answer, "preface": preface, "chat": chat}
    about |= {"stop": stop, "extract": extract, "max_tokens": max_tokens}
    about |= {"temperature": temperature, "exact": exact, "metrics": list(metrics)}
    return Task(pairs, requests, measure, summarise, asked.about | about)


def _held_out(documents, limit: int) -> solved.Asked:
    """The records of a run's own documents, evenly spread."""
    found = []
    for document in documents:
        record = document.meta.get("record", {})
        for question, reference in (("source", "target"), ("prompt", "completion")):
            if isinstance(record.get(question), str) and reference in record:
                fields = {"question": record[question], "answer": record[reference]}
                found.append(Item(document.id, fields))
    if not found:
        raise InputError(
            got="a split without sources and targets, or prompts and completions",
            want="items to ask",
            do="name a file of them by evaluate.task.LABEL.path",
        )
    chosen = spread(found, limit)
    about = {"path": "", "items": len(found), "limit": limit}
    return solved.Asked(chosen, [[] for _ in chosen], about)


def _values(found, known, exact, metrics, point) -> dict[str, tuple[float, float]]:
    made = answer_text.normalised(found, exact, point)
    wanted = [answer_text.normalised(k, exact, point) for k in known]
    values = {
        "exact_match": float(made in wanted),
        "f1": max(answer_text.f1(made, k) for k in wanted),
    }
    if "rouge" in metrics:
        scorer = _library("rouge_score.rouge_scorer").RougeScorer(
            ["rouge1", "rouge2", "rougeL"], use_stemmer=True
        )
        each = [scorer.score(k, found) for k in known]
        for name in ("rouge1", "rouge2", "rougeL"):
            values[name] = max(e[name].fmeasure for e in each)
    if "chrf" in metrics:
        library = _library("sacrebleu")
        values["chrf_sentence"] = library.sentence_chrf(found, known).score
    return {name: (value, 1.0) for name, value in values.items()}


def _corpus(name: str, figures) -> tuple[Figure, str]:
    """A figure of sacrebleu, the interval of its own bootstrap, and its signature."""
    metric = _metric(name)
    columns = _columns([f["references"] for f in figures])
    said = [f["extracted"] for f in figures]
    if len(said) == 1:
        score = metric.corpus_score(said, columns).score
        return Figure(score, score, score, 1), str(metric.get_signature())
    made = metric.corpus_score(said, columns, n_bootstrap=1000)
    mean, half = made._mean, made._ci  # the library shows them in its text alone
    return (
        Figure(made.score, max(mean - half, 0.0), min(mean + half, 100.0), len(said)),
        str(metric.get_signature()),
    )


def _metric(name: str) -> Any:
    library = _library("sacrebleu")
    return {"bleu": library.BLEU, "chrf": library.CHRF}[name]()


def _columns(references: list[list[str]]) -> list[list[str]]:
    """References of texts as columns; a missing one repeats the last."""
    most = max(map(len, references))
    return [[of[min(i, len(of) - 1)] for of in references] for i in range(most)]


def _references(item: Item, pattern: str) -> list[str]:
    value = item["answer"]
    known = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    found = [answer_text.extracted(k, pattern) for k in known]
    if not found or not all(found):
        raise InputError(
            got=f"{item.id} with answer {str(value)[-60:]!r}",
            want=f"a reference{f' that matches {pattern!r}' if pattern else ''}",
        )
    return found


def _check(extract, target, stop, metrics, point):
    if point not in (".", ","):
        raise InputError(got=f"point {point!r}", want="'.' or ','")
    for name, pattern in (("extract", extract), ("target", target), ("stop", stop)):
        try:
            re.compile(pattern)
        except re.error as error:
            raise InputError(
                got=f"{name} {pattern!r} ({error})", want="a regular expression"
            ) from error
    for name in metrics:
        if name not in _KNOWN:
            raise InputError(got=f"metric {name!r}", want=f"of {', '.join(_KNOWN)}")
    for name in metrics:
        _library("rouge_score.rouge_scorer" if name == "rouge" else "sacrebleu")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            got=f"no package {name.partition('.')[0]}",
            want="it, for this metric",
            do="pip install -c constraints.txt -e .[eval]",
        ) from error
