"""What a reward model says of an answer: one that was trained by configs/reward.py.

It reads the very tokens of the prompt and of the answer, so it must have the tokenizer
of the model that trains, as it has when both began with the same model.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llm import run_dir
from llm.errors import InputError
from llm.rewards import Answer, Failed, Reward

TINY: dict[str, Any] = {}


def make(*, model_dir: str = "", device: Any = None) -> Reward:
    """Makes the reward.

    Args:
      model_dir: the run directory of a reward model.
      device: where it is to lie; without one the model is not read, only checked.

    Raises:
      InputError: none, or another kind of model.
    """
    if not model_dir:
        raise InputError(
            got="no rollouts.reward.model.model_dir",
            want="the run directory of a reward model",
            do="train one: configs/reward.py",
        )
    if device is None:
        run_dir.load(model_dir)
        return lambda answers: [None] * len(answers)
    from llm.inference import load_model
    from llm.inference.reward_scores import scorer

    loaded = load_model.load(model_dir, device)
    score = scorer(loaded)

    # A thread of its own: the mesh of the model that trains is a context of a thread,
    # and this model lies on one device.
    apart = ThreadPoolExecutor(1)

    def reward(answers: Sequence[Answer]) -> list[float | None]:
        own = loaded.tokenizer.fingerprint
        if any(answer.tokenizer != own for answer in answers):
            raise Failed(f"{model_dir} has another tokenizer than the one that trains")
        rows = [[*answer.prompt_ids, *answer.ids] for answer in answers]
        return [float(value) for value in apart.submit(score, rows).result()]

    return reward
