"""Models of ours under lm-evaluation-harness (EleutherAI), by its `TemplateLM`.

Its tasks are YAML files; those that come with it download their data, so a folder of
one's own is what this expects. Scores are those of our own tasks on the same items.

    model = harness.language_model(loaded, batch_size=16)
    results = harness.evaluate(model, tasks=("mine",), folder="tasks/")
"""

import re
import types
from collections.abc import Sequence
from typing import Any

from llm.errors import InputError
from llm.inference.answer_requests import answerer
from llm.inference.likelihood import pairs
from llm.inference.load_model import Loaded
from llm.inference.requests import Generate, Rolling, Score
from llm.inference.score import prefix


def language_model(
    loaded: Loaded,
    *,
    batch_size: int = 32,
    max_tokens: int = 0,
    overlap: float = 0.0,
    max_new: int = 256,
) -> Any:
    """An `LM` of the harness.

    Args:
      max_tokens: longest row that is scored; 0 is the model's own context.
      overlap: of the windows of rolling likelihoods; 0 is what the harness does itself.
      max_new: tokens of an answer, where a task does not say.

    Raises:
      InputError: the harness is not installed.
    """
    api = _library()
    tokenizer = loaded.tokenizer
    answer = answerer(
        loaded, overlap=overlap, batch_size=batch_size, max_tokens=max_tokens
    )

    class LLM(api.model.TemplateLM):
        """What the harness asks, as requests of ours."""

        tokenizer_name = tokenizer.fingerprint

        @property
        def eot_token_id(self) -> int:
            return tokenizer.ends[0]

        @property
        def prefix_token_id(self) -> int:
            return prefix(tokenizer)[0]

        def tok_encode(self, string, add_special_tokens=None, **_) -> list[int]:
            start = [] if add_special_tokens is False else tokenizer.start()
            return [*start, *tokenizer.encode(string)]

        def _encode_pair(self, context, continuation):
            return tuple(pairs(tokenizer, [(context, continuation)])[0])

        def loglikelihood(self, requests, disable_tqdm=False):
            asked = [Score(*request.args) for request in requests]
            return [(a.logprob, a.greedy) for a in answer(asked, "harness")]

        def _loglikelihood_tokens(self, requests, **_):
            raise NotImplementedError("texts are scored by loglikelihood")

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            asked = [Rolling(request.args[0], end=False) for request in requests]
            return [-a.nats for a in answer(asked, "harness")]

        def generate_until(self, requests, disable_tqdm=False):
            asked = [_generation(*request.args, max_new) for request in requests]
            return [a.text for a in answer(asked, "harness")]

    return LLM()


def evaluate(
    model: Any, *, tasks: Sequence[str], folder: str, shots: int = 0, limit: int = 0
) -> dict[str, Any]:
    """{task: {figure: value}} of the tasks of a folder of YAML files."""
    api = _library()
    known = api.tasks.TaskManager(include_path=folder, include_defaults=False)
    missing = [name for name in tasks if name not in known.all_tasks]
    if missing or not tasks:
        raise InputError(
            got=f"harness tasks {', '.join(missing) or '()'}",
            want=f"of {folder}: {', '.join(known.all_tasks) or 'none there'}",
        )
    made = api.evaluator.simple_evaluate(
        model=model, tasks=list(tasks), task_manager=known, num_fewshot=shots or None,
        limit=limit or None, bootstrap_iters=0, log_samples=False,
    )  # fmt: skip
    return {
        name: {
            figure: value
            for figure, value in figures.items()
            if isinstance(value, int | float)
        }
        for name, figures in made["results"].items()
    }


def _generation(prompt: str, given: dict[str, Any], max_new: int) -> Generate:
    until = given.get("until") or []
    until = [until] if isinstance(until, str) else until
    sampled = given.get("do_sample") and given.get("temperature", 0)
    return Generate(
        prompt,
        "|".join(re.escape(text) for text in until if text),
        int(given.get("max_gen_toks", max_new)),
        float(given["temperature"]) if sampled else 0.0,
    )


def _library() -> Any:
    try:
        import lm_eval.api.model
        import lm_eval.evaluator
        import lm_eval.tasks
    except ModuleNotFoundError as error:
        raise InputError(
            got=f"no package {error.name}",
            want="lm-eval, the evaluation harness",
            do="pip install -c constraints.txt -e .[eval]",
        ) from error
    return types.SimpleNamespace(
        model=lm_eval.api.model, evaluator=lm_eval.evaluator, tasks=lm_eval.tasks
    )
