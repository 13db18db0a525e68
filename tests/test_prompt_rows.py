"""Prompts as rows, for decoders and for encoder-decoders."""

import dataclasses

import numpy as np
import pytest
import tiny
from test_generate import BOS, EOS, PAD, TOKENIZER, Letters

from llm import registry
from llm.errors import InputError
from llm.inference.prompt_rows import cache_for, check_length, inputs_of, rows_of


def build(name):
    spec = registry.spec("models", name, **registry.module("models", name).TINY)
    return registry.build("models", spec, vocab_size=64)


@dataclasses.dataclass(frozen=True)
class Bare(Letters):
    """A tokenizer that begins and ends no text."""

    ends: tuple = ()

    def start(self):
        return []


def test_a_decoder_goes_on_from_its_prompt():
    rows, sources = rows_of(tiny.model(), TOKENIZER, ["ab", ""])
    assert rows == [[BOS, 4, 5], [BOS]] and sources is None


def test_a_start_that_a_template_wrote_is_not_written_twice():
    class Spelled(Letters):
        def encode(self, text):
            begun = text.startswith("<s>")
            return [BOS] * begun + super().encode(text.removeprefix("<s>"))

    rows, _ = rows_of(tiny.model(), Spelled(), ["<s>ab", "ab"])
    assert rows == [[BOS, 4, 5]] * 2


def test_an_encoder_decoder_reads_it_and_begins_with_padding():
    rows, sources = rows_of(build("t5"), TOKENIZER, ["ab", "c"])
    assert rows == [[PAD], [PAD]]
    assert sources == [[BOS, 4, 5, EOS], [BOS, 6, EOS]]


def test_rows_are_padded_on_the_right():
    made = inputs_of([[7, 8, 9], [5]], [[1], [2, 3]], multiple=4)
    assert made.tokens_BT.tolist() == [[7, 8, 9, 0], [5, 0, 0, 0]]
    assert made.segments_BT.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert made.positions_BT.tolist() == [[0, 1, 2, 0], [0, 0, 0, 0]]
    assert made.source.tokens_BT.tolist() == [[1, 0, 0, 0], [2, 3, 0, 0]]
    assert np.asarray(made.index_B).tolist() == [0, 1]


@pytest.mark.parametrize("name", ["llama", "gru", "t5"])
def test_caches_are_long_enough(name):
    of = build(name)
    source = [[1, 2, 3]] if name == "t5" else None
    inputs = inputs_of([[4, 5]], source)
    cache = cache_for(of, inputs, 6)
    params = tiny.params(of)
    tiny.cached(of, params, inputs, cache)


def test_bad_input():
    with pytest.raises(InputError, match="a BERT, to generate"):
        rows_of(build("bert"), TOKENIZER, ["a"])
    with pytest.raises(InputError, match="no token to begin with"):
        rows_of(tiny.model(), Bare(), [""])
    with pytest.raises(InputError, match="text for the encoder to read"):
        rows_of(build("t5"), TOKENIZER, ["a", ""])
    with pytest.raises(InputError, match="no padding id"):
        rows_of(build("t5"), dataclasses.replace(TOKENIZER, pad_id=-1), ["a"])


def test_texts_beyond_the_learned_positions_are_refused():
    of = build("gpt")
    known = of.cfg.context
    check_length(of, [[1] * 100], known - 100)
    with pytest.raises(InputError, match=f"for a model of {known}; want at most"):
        check_length(of, [[1] * 100], known - 99)
    check_length(tiny.model(), [[1] * 10_000], 10_000)  # it has rotary positions
