"""What a model writes, against references: exact match, F1, BLEU, chrF, ROUGE.

The answer is what the model generates after the prompt, up to a stop; of it, and of the
reference, a regular expression may take a part: the number after `####` of a worked
solution (GSM8K). `chat=True` asks by the model's chat template.

`exact_match` and `f1` (of words, as in SQuAD) are always there, on texts in lower case,
without punctuation and articles unless `exact=True`; `metrics` adds bleu, chrf (of
sacrebleu, whose signature is kept) and rouge (of rouge-score), which need the extra
`eval`. An item's reference may be a list: the best one counts.

Fields: those of the templates, and `answer`. Without a path, the items are the records
of the split that the run held out, of sources with targets or of prompts with
completions: `{question}` and `{answer}` are these.
"""

import collections
import importlib
import re
import string
from typing import Any

from llm.data import shots as solved
from llm.data.items import Item, filled, spread
from llm.errors import InputError
from llm.metrics import Figure, of_items, summary
from llm.task import Context, Generate, Generated, Task

TINY: dict[str, Any] = {"max_tokens": 8, "limit": 2}
_KNOWN = ("bleu", "chrf", "rouge")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = str.maketrans("", "", string.punctuation)


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
    metrics: tuple[str, ...] = (),
    context: Context,
) -> Task:
    r"""Generation.

    Args:
      path, fields, columns: of the items, as in `llm/data/items.py`.
      prompt, answer: templates of what is asked, and of a shot's answer.
      preface: stands before all.
      chat, system: whether the prompt is what a user says, and shots are turns.
      stop: regular expression that ends an answer.
      extract: regular expression whose last match, of its first group if it has one, is
        taken of what was generated: r"#### (-?[\d,.]+)". No match is no answer.
      target: the same for the reference; '' is `extract`.
      exact: whether case, punctuation and articles count in a match.
      metrics: more figures: bleu, chrf, rouge.
    """
    _check(extract, target, stop, metrics)
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
        found = extracted(said, extract)
        known = references[item.id]
        return {
            "id": item.id,
            "input": filled(prompt, item)[-600:],
            "target": known[0],
            "output": said,
            "extracted": found,
            "stop_reason": made.stop_reason,
            "references": known,
            "values": _values(found, known, exact, metrics)
            | {"ended": (float(made.stop_reason != "length"), 1.0)},
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
    about |= {"temperature": temperature, "exact": exact}
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


def extracted(text: str, pattern: str) -> str:
    """The last match of a pattern, '' without one; all of the text without a pattern.

    >>> extracted("so #### 1,200", r"#### (-?[0-9,.]+)")
    '1,200'
    """
    if not pattern:
        return text
    found = list(re.finditer(pattern, text))
    if not found:
        return ""
    return (found[-1][1] if found[-1].re.groups else found[-1][0]) or ""


def normalised(text: str, exact: bool = False) -> str:
    """As it is compared: numbers without their thousands, one space between words."""
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text).strip()
    if exact:
        return text
    number = re.fullmatch(r"[$€£]?(-?\d+(?:\.\d+)?)\.?", text)
    if number:
        return f"{float(number[1]):g}"
    text = _ARTICLES.sub(" ", text.lower().translate(_MARKS))
    return " ".join(text.split())


def f1(said: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, both texts normalised."""
    mine, theirs = said.split(), reference.split()
    shared = sum((collections.Counter(mine) & collections.Counter(theirs)).values())
    return 2 * shared / (len(mine) + len(theirs)) if shared else float(mine == theirs)


def _values(found, known, exact, metrics) -> dict[str, tuple[float, float]]:
    made = normalised(found, exact)
    wanted = [normalised(k, exact) for k in known]
    values = {
        "exact_match": float(made in wanted),
        "f1": max(f1(made, k) for k in wanted),
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
    library = _library("sacrebleu")
    metric = {"bleu": library.BLEU, "chrf": library.CHRF}[name]()
    most = max(len(f["references"]) for f in figures)
    # References as columns; a missing one repeats the first.
    columns = [
        [f["references"][min(i, len(f["references"]) - 1)] for f in figures]
        for i in range(most)
    ]
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


def _references(item: Item, pattern: str) -> list[str]:
    value = item["answer"]
    known = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    found = [extracted(k, pattern) for k in known]
    if not found or not all(found):
        raise InputError(
            got=f"{item.id} with answer {str(value)[-60:]!r}",
            want=f"a reference{f' that matches {pattern!r}' if pattern else ''}",
        )
    return found


def _check(extract, target, stop, metrics):
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
