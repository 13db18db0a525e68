"""Scores a trained run on its held-out split, and on any other text: evaluate.json."""

import json
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from llm import atomic, importing, registry, run_directory
from llm import train as training
from llm.data import corpus, loader, tokens
from llm.data.split import SPLITS
from llm.document import Document
from llm.errors import InputError
from llm.inference import load, sampling
from llm.inference.generate import generate
from llm.inference.score import rolling_scorer
from llm.nn.contract import with_head
from llm.task import Context, Generate, Rolling, Task


def run(c: ConfigDict, workdir: str) -> None:
    """Runs `c.evaluate.tasks` on a model and writes their figures."""
    check(c)
    e = c.evaluate
    device, host = jax.devices()[0], jax.devices("cpu")[0]
    model_dir = importing.run_of(e.model_dir or workdir, workdir, host)
    # First, so that a wrong path leaves nothing behind.
    loaded = load.load(model_dir, device)
    _check_kind(loaded.config.model.name, c)
    # The corpus that the model was trained on says what it has not seen; an imported
    # model has none, and can be asked about another, or about a text alone.
    corpus_dir = c.data.corpus_dir or loaded.config.data.corpus_dir or model_dir
    if e.tasks and not (epath.Path(corpus_dir) / "corpus").exists():
        raise InputError(
            got=f"no corpus in {corpus_dir}, for {', '.join(e.tasks)}",
            want="the run that prepared one, as data.corpus_dir",
            do="to score eval_text alone, add --config.evaluate.tasks='()'",
        )
    run_directory.claim(
        workdir, c.to_dict(), device=device.device_kind, devices=len(jax.devices())
    )
    documents = (
        corpus.read(epath.Path(corpus_dir) / "corpus", e.split) if e.tasks else []
    )
    context = Context(
        documents=documents,
        training_texts=lambda: [
            d.text for d in corpus.read(epath.Path(corpus_dir) / "corpus", "train")
        ],
        count_tokens=lambda text: len(loaded.tokenizer.encode(text)),
    )
    outside = context
    if c.eval_text:
        outside = context._replace(documents=_outside(c.eval_text, loaded.config))
    result: dict[str, Any] = {"split": e.split, "step": loaded.step}
    result |= _figures(loaded, c, context, outside)
    if e.before:
        begun = loaded.config.get("init_from")
        if not begun:
            raise InputError(
                got="evaluate.before of a run that began with random weights",
                want="a run with init_from",
                do="--config.evaluate.before=False",
            )
        print("before:", flush=True)
        source = importing.run_of(begun, model_dir, host)
        result["before"] = _figures(load.load(source, device), c, context, outside)
    if e.objective:
        result["objective"] = _objective(loaded, model_dir, c)
        shown = ", ".join(f"{k} {v:.4f}" for k, v in result["objective"].items())
        print(f"{loaded.config.objective.name}: {shown}", flush=True)
    atomic.write_text(
        epath.Path(workdir) / "evaluate.json", json.dumps(result, indent=1) + "\n"
    )


def _figures(
    loaded: load.Loaded, c: ConfigDict, context: Context, outside: Context
) -> dict[str, Any]:
    """What the tasks say of a model, and of the text outside the corpus."""
    answer, result = _answerer(loaded, c), {}
    for name in c.evaluate.tasks:
        knobs = {"name": name, **c.evaluate.task.get(name, {})}
        task = registry.build("evals", knobs, context=context)
        result |= perform(task, answer)
        print(_line(name, result), flush=True)
    if c.eval_text:
        task = registry.build("evals", "perplexity", context=outside)
        result["eval_text"] = {"path": c.eval_text, **perform(task, answer)}
        print(_line(c.eval_text, result["eval_text"]), flush=True)
    return result


def check(c: ConfigDict) -> None:
    """Raises InputError for what cannot be evaluated, before anything is read."""
    e = c.evaluate
    for name in e.tasks:
        known = registry.defaults(registry.module("evals", name).make)
        registry.check_knobs(f"evals {name!r}", dict(e.task.get(name, {})), known)
    if e.split not in SPLITS:
        raise InputError(
            got=f"evaluate.split {e.split!r}", want=f"one of {', '.join(SPLITS)}"
        )
    if not 0 <= e.overlap < 1:
        raise InputError(
            got=f"evaluate.overlap {e.overlap}", want="at least 0 and below 1"
        )
    if e.batch_size < 1:
        raise InputError(got=f"evaluate.batch_size {e.batch_size}", want="1 or more")
    if c.eval_text:
        _read(c.eval_text)
    if not e.model_dir:
        _check_kind(c.model.name, c)


def _check_kind(model: str, c: ConfigDict) -> None:
    """Raises InputError where a model gives texts no likelihood that is asked for."""
    kind = registry.module("models", model).KIND
    asked = [*c.evaluate.tasks, *["eval_text"] * bool(c.eval_text)]
    if asked and kind != "causal":
        raise InputError(
            got=f"{', '.join(asked)} of a {model}, which is {kind}",
            want="a causal model, or the figures of its own objective",
            do="evaluate.tasks=() and evaluate.objective=True",
        )


def perform(task: Task, answer: Any) -> dict[str, Any]:
    """Asks everything a task wants to know, at once, and summarises the answers."""
    asked = [task.requests(example) for example in task.examples]
    answers = iter(answer([request for requests in asked for request in requests]))
    figures = [
        task.measure(example, [next(answers) for _ in requests])
        for example, requests in zip(task.examples, asked, strict=True)
    ]
    return task.summarise(figures)


def _answerer(loaded: load.Loaded, c: ConfigDict):
    """A function from requests to answers, each kind in batches."""
    e = c.evaluate
    score = rolling_scorer(
        loaded.model,
        loaded.params,
        loaded.tokenizer,
        length=loaded.config.train.seq_len,
        overlap=e.overlap,
        batch_size=e.batch_size,
        policy=loaded.model.policy,
    )
    decoding: tuple[Any, ...] = ()  # made when it is first asked for

    def answer(requests: list[Any]) -> list[Any]:
        nonlocal decoding
        answers: list[Any] = [None] * len(requests)
        by_kind: dict[Any, list[int]] = {}
        for number, request in enumerate(requests):
            # Generations of one form share a batch.
            form = request[1:] if isinstance(request, Generate) else ()
            by_kind.setdefault((type(request), form), []).append(number)
        for (kind, form), numbers in by_kind.items():
            texts = [requests[n][0] for n in numbers]
            if kind is Rolling:
                made = score(texts)
            else:
                stop, max_tokens, temperature = form
                decoding = decoding or load.for_decoding(loaded)
                made = generate(
                    *decoding,
                    loaded.tokenizer,
                    texts,
                    knobs=sampling.Sampling(temperature=temperature),
                    max_tokens=max_tokens,
                    stop=stop,
                    seed=c.seed,
                    batch_size=e.batch_size,
                )
            for number, one in zip(numbers, made, strict=True):
                answers[number] = one
        return answers

    return answer


def _objective(loaded: load.Loaded, model_dir: str, c: ConfigDict) -> dict[str, float]:
    """Means of the objective over the tokens of the split: loss, accuracy, ..."""
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
    )
    apply = with_head(loaded.model)
    sums = jax.jit(training.build_validate(apply, loaded.objective, policy))
    frozen = training.NOTHING
    if loaded.objective.reference:
        frozen = training.Frozen(reference=load.reference(loaded, model_dir))
    total: dict[str, np.ndarray] = {}
    for batch in rows:
        made = sums(loaded.params, batch, frozen)
        for name, pair in jax.device_get(made).items():
            total[name] = total.get(name, 0.0) + np.array(pair, np.float64)
    return {name: float(x / max(weight, 1.0)) for name, (x, weight) in total.items()}


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
    """Documents of a text file or folder; InputError for what is not text."""
    source = registry.build("sources", {"name": "text", "path": path})
    return list(source(lambda reason, name: None))  # only empty files are left out


def _line(name: str, result: dict[str, Any]) -> str:
    shown = {
        "bits_per_byte": "{:.4f} bits per byte",
        "perplexity": "perplexity {:.2f}",
        "token_accuracy": "accuracy {:.1%}",
        "syntax_valid_rate": "{:.0%} of sampled functions valid",
        "syntax_corpus_rate": "corpus {:.0%}",
        "syntax_distinct_rate": "distinct {:.0%}",
    }
    mine = {k: v for k, v in result.items() if k in shown}
    if name == "perplexity" or "/" in name:
        mine = {k: v for k, v in mine.items() if not k.startswith("syntax")}
    if name == "syntax":
        mine = {k: v for k, v in mine.items() if k.startswith("syntax")}
    return f"{name}: " + ", ".join(shown[k].format(v) for k, v in mine.items())
