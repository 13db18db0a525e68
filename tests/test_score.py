"""Every token is scored once, with the context that its window gives it."""

import dataclasses
import math

import numpy as np
import pytest
import tiny
from tiny import V

from llm.inference.score import rolling_scorer, windows
from llm.nn.contract import plain_inputs
from llm.precision import FLOAT32


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_every_token_once_with_enough_context(length, overlap):
    for count in range(2, 40):
        ids = list(range(100, 100 + count))
        seen = []
        for number, window in enumerate(windows(ids, length, overlap)):
            assert window.tokens.shape == window.targets.shape == (length,)
            for place in np.flatnonzero(window.counts):
                target = int(window.targets[place])
                # The inputs up to it are the text right before it.
                before = window.tokens[: place + 1].tolist()
                assert before == list(range(target - place - 1, target))
                if number:
                    assert place >= min(int(overlap * length), length - 1)
                seen.append(target)
        assert seen == ids[1:]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Texts are numbers with spaces between."""

    ends: tuple = (3,)
    bos_id: int = 2
    vocab_size: int = V

    def start(self):
        return [2]

    def encode_batch(self, texts):
        return [[int(word) for word in text.split()] for text in texts]


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def params(model):
    return tiny.params(model)


@pytest.mark.parametrize("overlap, batch_size", [(0.5, 3), (0.0, 4)])
def test_sums_equal_one_softmax_a_token(model, params, overlap, batch_size):
    length = 6
    rng = np.random.default_rng(0)
    sizes = [0, 1, 4, 5, 6, 13, 20]
    texts = [" ".join(map(str, rng.integers(4, V, n))) for n in sizes]
    score = rolling_scorer(
        model, params, Numbers(), length=length, overlap=overlap,
        batch_size=batch_size, policy=FLOAT32,
    )  # fmt: skip
    got = score(texts)
    stride = length - int(overlap * length)
    for text, scored in zip(texts, got, strict=True):
        ids = [2, *map(int, text.split()), 3]
        nats, correct = 0.0, 0
        for target in range(1, len(ids)):
            # The first window that holds the target begins at a whole stride, the last
            # one as early as it can.
            begin = 0
            while target > begin + length:
                begin += stride
            begin = min(begin, max(len(ids) - 1 - length, 0))
            context = np.zeros((1, length), np.int32)
            context[0, : target - begin] = ids[begin:target]
            logits = tiny.logits(model, params, plain_inputs(context))
            logits = np.asarray(logits, np.float64)[0, target - begin - 1]
            log_p = logits - logits.max()
            log_p = log_p - math.log(np.exp(log_p).sum())
            nats -= log_p[ids[target]]
            correct += int(logits.argmax() == ids[target])
        assert scored.tokens == len(ids) - 1
        assert scored.correct == correct
        np.testing.assert_allclose(scored.nats, nats, rtol=1e-5)


def test_no_texts(model, params):
    score = rolling_scorer(
        model, params, Numbers(), length=4, overlap=0.5, batch_size=2, policy=FLOAT32
    )
    assert score([]) == []
