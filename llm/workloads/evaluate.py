"""Scores a trained run on its held-out split, on any other text, and on tasks.

Writes evaluate.json, the figures, and evaluate_items.jsonl, what each item came to: by
these two models are compared item by item. The figures of a task stand under its name,
with what they depend on: files, shots, templates, and how texts begin; those of a few,
such as perplexity, at the top.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llm import checkpoint, evals, files, registry, run_dir, tree
from llm.corpus import storage
from llm.corpus.split import SPLITS
from llm.data import loader, tokens
from llm.document import Document
from llm.errors import InputError
from llm.evals import Context, Task
from llm.inference import finished_items, import_model, load_model
from llm.inference.answer_requests import answerer
from llm.inference.class_probabilities import classes_of
from llm.knobs import Count, Positive, ShareBelow1, section
from llm.nn.contract import with_head
from llm.registry import every_plugin
from llm.training import train_step
from llm.training.init_state import Begin
from llm.workloads import claim

_BLOCK = 128  # examples after which those that are finished are kept


@section("")
class Outside:
    """Text from outside."""

    # A text file, or a folder of them, to score besides the held-out split.
    eval_text: str = ""


@section("evaluate")
class Evaluate:
    """Evaluations."""

    # As generate.model_dir.
    model_dir: str = ""
    # Files of llm/evals/ to run, in this order.
    tasks: tuple[str, ...] = ("perplexity", "syntax")
    # Whether to score the split by the objective that the model was trained with, as a
    # validation does: for models that are not asked for the likelihood of a text.
    objective: bool = False
    # Whether to score the model that the run began with, too, by the same tasks and
    # the same objective.
    before: bool = False
    # Split of the corpus that is scored.
    split: Literal[SPLITS] = "test"
    # Share of a window that is context kept from the window before, so that few tokens
    # are scored with little context; and windows scored, or texts generated, at once.
    overlap: ShareBelow1 = 0.5
    batch_size: Positive = 32
    # Longest row of tokens that is scored; 0 is as many as the model was trained with.
    max_tokens: Count = 0
    # Knobs of the tasks. One may be there by another name: `name` then says its file.
    task: dict = every_plugin("evals")


SECTIONS = (Begin, Outside, Evaluate)
SECTIONS_OF = ("prepare_data",)


def run(c: ConfigDict, workdir: str) -> None:
    """Runs `c.evaluate.tasks` on a model and writes their figures."""
    check(c)
    e = c.evaluate
    device, host = jax.devices()[0], jax.devices("cpu")[0]
    model_dir = import_model.run_of(e.model_dir or workdir, workdir, host)
    # First, so that a wrong path leaves nothing behind.
    loaded = load_model.load(model_dir, device)
    _check_kind(loaded.config.model.name, c)
    # The corpus that the model was trained on says what it has not seen; an imported
    # model has none, and can be asked about another, or about a text alone.
    corpus_dir = c.data.corpus_dir or loaded.config.data.corpus_dir or model_dir
    of_corpus = [label for label in e.tasks if "corpus" in evals.needs(_spec(c, label))]
    if of_corpus and not (epath.Path(corpus_dir) / "corpus").exists():
        raise InputError(
            got=f"no corpus in {corpus_dir}{files.relative_to(corpus_dir)}, "
            f"for {', '.join(of_corpus)}",
            want="the run that prepared one, as data.corpus_dir",
            do="to score eval_text alone, add --config.evaluate.tasks='()'",
        )
    documents = (
        storage.read(epath.Path(corpus_dir) / "corpus", e.split) if of_corpus else []
    )
    context = Context(
        documents=documents,
        training_texts=lambda: [
            d.text for d in storage.read(epath.Path(corpus_dir) / "corpus", "train")
        ],
        count_tokens=lambda text: len(loaded.tokenizer.encode(text)),
        classes=classes_of(loaded),
        task=lambda label: _task(c, label, context),
    )
    # Before anything is written: what is wrong with a file of items shows here.
    tasks = {label: _task(c, label, context) for label in e.tasks}
    if c.eval_text:
        outside = context._replace(documents=_outside(c.eval_text, loaded.config))
        tasks["eval_text"] = registry.build("evals", "perplexity", context=outside)
    claim(c, workdir)
    result: dict[str, Any] = {"split": e.split, "step": loaded.step}
    about = _about(loaded, model_dir)
    figures, items = _figures(
        loaded, c, tasks, finished_items.Items(workdir, about | {"step": loaded.step})
    )
    result |= figures | {"model": about}
    if e.before:
        begun = loaded.config.get("init_from")
        if not begun:
            raise InputError(
                got="evaluate.before of a run that began with random weights",
                want="a run with init_from",
                do="--config.evaluate.before=False",
            )
        print("before:", flush=True)
        source = load_model.load(import_model.run_of(begun, model_dir, host), device)
        kept = finished_items.Items(workdir, _about(source, begun), "before")
        result["before"], _ = _figures(source, c, tasks, kept)
    if e.objective:
        measure, name = _objective(loaded, model_dir, c), loaded.config.objective.name
        result["objective"] = measure(loaded.params)
        print(f"{name}: {_shown(result['objective'])}", flush=True)
        # A network that training added to, such as a classifier, has no before.
        if e.before and _shapes(source.params) == _shapes(loaded.params):
            result["before"]["objective"] = measure(source.params)
            print(f"{name} before: {_shown(result['before']['objective'])}", flush=True)
    root = epath.Path(workdir)
    lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
    files.write_text(root / "evaluate_items.jsonl", "".join(lines))
    run_dir.write(workdir, "evaluate.json", result)
    finished_items.forget(workdir)


def _figures(
    loaded: load_model.Loaded,
    c: ConfigDict,
    tasks: dict[str, Task],
    kept: finished_items.Items,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the tasks say of a model, and what each of their items came to.

    Args:
      kept: items of an evaluation that was interrupted, which are not asked again.
    """
    e, result, items = c.evaluate, {}, []
    answer = answerer(
        loaded,
        seed=c.seed,
        overlap=e.overlap,
        batch_size=e.batch_size,
        max_tokens=e.max_tokens,
    )
    for label, task in tasks.items():
        answer.cut.clear()
        held = kept.of(label, {"knobs": _knobs_of(c, label), "about": task.about})
        made, figures = perform(
            task, lambda asked, what=label: answer(asked, what), held
        )
        if answer.cut["requests"]:
            made["truncated"] = dict(answer.cut)
            print(
                f"{label}: {answer.cut['requests']} prompts exceed the model's "
                f"context; {answer.cut['tokens']} tokens in front are cut",
                flush=True,
            )
        if label == "eval_text":
            result[label] = {"path": c.eval_text, **made}
        elif task.on_top:
            result |= made
        else:
            result[label] = {**made, "about": task.about}
        print(_line(c.eval_text if label == "eval_text" else label, made), flush=True)
        for number, figure in enumerate(figures):
            items.append({"task": label, "id": str(number), **figure})
    return result, items


def perform(
    task: Task, answer: Any, kept: finished_items.Kept | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Asks what a task wants to know: its figures, and those of items.

    Args:
      kept: items that were finished before; takes those that are finished now.
    """
    figures: list[dict[str, Any]] = kept.read() if kept else []
    examples = list(task.examples)[len(figures) :]
    for first in range(0, len(examples), _BLOCK):
        block = examples[first : first + _BLOCK]
        asked = [task.requests(example) for example in block]
        if kept and any(getattr(r, "temperature", 0) for some in asked for r in some):
            kept, block = None, examples  # what is sampled depends on all of them
            asked = [task.requests(example) for example in block]
        answers = iter(answer([request for requests in asked for request in requests]))
        new = [
            task.measure(example, [next(answers) for _ in requests])
            for example, requests in zip(block, asked, strict=True)
        ]
        figures += new
        if kept:
            kept.add(new)
        if block is examples:
            break
    return task.summarise(figures), figures


def _knobs_of(c: ConfigDict, label: str) -> dict[str, Any]:
    """What the answers to a task depend on beside the model."""
    e = c.evaluate
    knobs = dict(c.evaluate.task.get(label, {}))
    return {
        "task": json.loads(json.dumps(ConfigDict(knobs).to_dict(), default=list)),
        "eval_text": c.eval_text,
        "split": e.split,
        "overlap": e.overlap,
        "max_tokens": e.max_tokens,
        "seed": c.seed,
    }


def _task(c: ConfigDict, label: str, context: Context) -> Task:
    return registry.build("evals", _spec(c, label), context=context)


def _spec(c: ConfigDict, label: str) -> dict[str, Any]:
    """A task of the config: its name, which is its label unless it says another."""
    return {"name": label, **c.evaluate.task.get(label, {})}


def _about(loaded: load_model.Loaded, model_dir: str) -> dict[str, Any]:
    """What of a model moves its figures."""
    tokenizer = loaded.tokenizer
    template = tokenizer.chat_template
    return {
        "model_dir": model_dir,
        "name": loaded.config.model.name,
        "weights": checkpoint.digest(loaded.params),
        "starts_texts_with": tokenizer.start(),
        "tokenizer": tokenizer.fingerprint,
        "chat_template_sha256": hashlib.sha256(template.encode()).hexdigest()
        if template
        else "",
        "dtype": loaded.config.train.dtype,
    }


def check(c: ConfigDict) -> None:
    """Raises InputError for what cannot be evaluated, before anything is read."""
    e = c.evaluate
    for label in e.tasks:
        registry.check_spec("evals", _spec(c, label), f"evaluate.task.{label}")
    if c.eval_text:
        _read(c.eval_text)
    if not e.model_dir:
        _check_kind(c.model.name, c)


def _check_kind(model: str, c: ConfigDict) -> None:
    """Raises InputError where a model gives texts no likelihood that is asked for."""
    kind = registry.module("models", model).KIND
    asked = [
        label
        for label in c.evaluate.tasks
        if "likelihood" in evals.needs(_spec(c, label))
    ]
    asked += ["eval_text"] * bool(c.eval_text)
    if asked and kind != "causal":
        raise InputError(
            got=f"{', '.join(asked)} of a {model}, which is {kind}",
            want="a causal model, or the figures of its own objective",
            do="evaluate.tasks=() and evaluate.objective=True",
        )


def _objective(
    loaded: load_model.Loaded, model_dir: str, c: ConfigDict
) -> Callable[[Any], dict[str, float]]:
    """From parameters to means over the tokens of the split: loss, accuracy, ..."""
    if loaded.objective.online:
        raise InputError(
            got=f"evaluate.objective of {loaded.config.objective.name!r}, which learns "
            "from answers of its own",
            want="a task, such as evaluate.tasks=('generation',)",
            do="--config.evaluate.objective=False",
        )
    e, policy = c.evaluate, loaded.model.policy
    split = tokens.open_split(
        epath.Path(model_dir) / "tokens", e.split, loaded.tokenizer.fingerprint
    )
    rows = loader.eval_batches(
        split,
        seq_len=loaded.config.train.seq_len,
        batch_size=e.batch_size,
        features=loaded.objective.features,
        room=loaded.objective.room,
        unpaired=loaded.objective.unpaired,
    )
    apply = with_head(loaded.model)
    sums = jax.jit(train_step.build_validate(apply, loaded.objective, policy))
    frozen = train_step.NOTHING
    if loaded.objective.reference:
        frozen = train_step.Frozen(reference=load_model.reference(loaded, model_dir))

    def measure(params):
        total: dict[str, np.ndarray] = {}
        for batch in rows:
            made = sums(params, batch, frozen)
            for name, pair in jax.device_get(made).items():
                total[name] = total.get(name, 0.0) + np.array(pair, np.float64)
        return {name: float(x / max(w, 1.0)) for name, (x, w) in total.items()}

    return measure


def _shapes(params: Any) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in tree.named_leaves(params).items()}


def _shown(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in figures.items())


def _outside(path: str, trained: ConfigDict) -> list[Document]:
    """Documents of a text file or folder, normalised as the training text was."""
    documents = _read(path)
    if "normalise" in trained.data.stages:
        knobs = {"name": "normalise", **trained.data.stage.normalise}
        normalise = registry.build("stages", knobs)
        documents = [made for d in documents for made in normalise.apply(d)]
    if not documents:
        raise InputError(got=f"no text in {path}", want="a text file that is not empty")
    return documents


def _read(path: str) -> list[Document]:
    """Documents of a text file or folder, or those that a run holds out to test.

    Raises:
      InputError: what is not text.
    """
    if (epath.Path(path) / "corpus" / "manifest.json").exists():
        return storage.read(epath.Path(path) / "corpus", "test")
    source = registry.build("sources", {"name": "text", "path": path})
    return list(source(lambda reason, name: None))  # only empty files are left out


def _line(label: str, made: dict[str, Any]) -> str:
    known, interval = evals.metrics(), made.get("interval", {})
    headlines = [name for name, metric in known.items() if metric.headline]
    names = [n for n in headlines if isinstance(made.get(n), (int, float))]
    names = names or list(interval)
    if not names:
        return f"{label}: the split has nothing to ask about"
    parts = []
    for name in names:
        metric = known.get(name, evals.Metric(name, name))
        part = f"{metric.label} {metric.shown(made[name])}"
        if name in interval and "n" in made:
            low, high = map(metric.shown, interval[name])
            part += f" ({low} to {high})"
        parts.append(part)
    items = f"; {made['n']} items" if "n" in made else ""
    return f"{label}: {', '.join(parts)}{items}"
