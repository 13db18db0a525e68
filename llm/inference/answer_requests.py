"""Answers what evaluations ask of a model: each kind of request in its own batches.

    answer = answerer(loaded, batch_size=32)
    answer([Score("2 + 2 =", " 4"), Generate("2 + 2 =", "\\n", 4, 0.0)])

What is compiled for a kind is made when the first request of it comes.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from llm import registry
from llm.data import chat
from llm.errors import InputError
from llm.inference import load_model, sampling
from llm.inference.class_probabilities import classifier
from llm.inference.decoding import generate
from llm.inference.likelihood import likelihoods
from llm.inference.progress import Progress
from llm.inference.prompt_rows import check_generates
from llm.inference.requests import Generate, Predict, Reward, Rolling, Score
from llm.inference.reward_scores import reward_row, scorer
from llm.inference.score import rolling_scorer


def answerer(
    loaded: load_model.Loaded,
    *,
    seed: int = 0,
    overlap: float = 0.5,
    batch_size: int = 32,
    max_tokens: int = 0,
) -> Callable[..., list[Any]]:
    """A function from requests to answers, in order.

    Args:
      overlap: of the windows that a long text is scored in.
      max_tokens: longest row that is scored; 0 is the model's own context.

    Returns:
      The function; its `cut` counts requests and tokens in front that were not read.

    Raises:
      InputError: when it is called with what this model cannot be asked.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    kind = registry.module("models", loaded.config.model.name).KIND
    length = max_tokens or load_model.context(loaded)
    cut: collections.Counter[str] = collections.Counter()

    @functools.cache
    def rolling():
        _check("the likelihood of a whole text", kind, ("causal",))
        return rolling_scorer(
            model, loaded.params, tokenizer, length=length, overlap=overlap,
            batch_size=batch_size, policy=model.policy,
        )  # fmt: skip

    @functools.cache
    def scores():
        return likelihoods(
            model, loaded.params, tokenizer, kind=kind, max_tokens=length,
            batch_size=batch_size, mask_id=mask_id(loaded) if kind == "masked" else -1,
        )  # fmt: skip

    @functools.cache
    def classes():
        return classifier(loaded, batch_size=batch_size)

    @functools.cache
    def rewards():
        return scorer(loaded, batch_size=batch_size)

    @functools.cache
    def decoding():
        check_generates(model)
        return load_model.for_decoding(loaded)

    def written(requests: Sequence[Generate], done):
        """Continuations of one form, which may share a batch."""
        _, stop, most, temperature = requests[0]
        prompts = [_prompt(tokenizer, r.prompt) for r in requests]
        make = functools.partial(
            generate,
            *decoding(),
            tokenizer,
            knobs=sampling.Sampling(temperature=temperature),
            max_tokens=most,
            stop=stop,
            seed=seed,
            batch_size=batch_size,
        )
        if temperature:  # what is sampled depends on the number of the prompt
            made = make(prompts)
            done(len(made))
            return made
        made = [None] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
        for first in range(0, len(order), batch_size):
            part = order[first : first + batch_size]
            for n, one in zip(part, make([prompts[n] for n in part]), strict=True):
                made[n] = one
            done(len(part))
        return made

    def answer(requests: Sequence[Any], what: str = "requests") -> list[Any]:
        progress = Progress(what, len(requests)).add
        by_kind: dict[Any, list[int]] = {}
        for number, request in enumerate(requests):
            form = request[1:] if isinstance(request, Generate) else ()
            by_kind.setdefault((type(request), form), []).append(number)
        answers: list[Any] = [None] * len(requests)
        for (asked, _), numbers in by_kind.items():
            some = [requests[n] for n in numbers]
            if asked is Rolling:
                made = [
                    one
                    for ends, group in itertools.groupby(some, lambda r: r.end)
                    for one in rolling()([r.text for r in group], ends=ends)
                ]
            elif asked is Score:
                made = scores()(some, progress)
                cut["requests"] += sum(one.cut > 0 for one in made)
                cut["tokens"] += sum(one.cut for one in made)
            elif asked is Predict:
                made = classes()([r.text for r in some], progress)
            elif asked is Reward:
                made = rewards()([reward_row(tokenizer, *r) for r in some], progress)
            else:
                made = written(some, progress)
            for number, one in zip(numbers, made, strict=True):
                answers[number] = one
        return answers

    answer.cut = cut
    return answer


def mask_id(loaded: load_model.Loaded) -> int:
    """The id that stands for a masked token: the tokenizer's own, or the one that the
    objective put behind the vocabulary; -1 where there is none."""
    tokenizer = loaded.tokenizer
    if tokenizer.mask_id >= 0:
        return tokenizer.mask_id
    trained = loaded.objective.extra_tokens == 1 and loaded.step > 0
    return tokenizer.vocab_size if trained else -1


def _prompt(tokenizer, prompt) -> str | list[int]:
    if isinstance(prompt, str):
        return prompt
    said = [{"role": role, "content": content} for role, content in prompt]
    return chat.prompt_ids(tokenizer, said)


def _check(what: str, kind: str, kinds: tuple[str, ...]) -> None:
    if kind not in kinds:
        raise InputError(
            got=f"{what}, of a model that is {kind}", want=f"one that is {kinds[0]}"
        )
