"""Checks of whole texts and of streams; all ways to cut a stream give the same."""

import random
import re

import pytest

from llm.errors import InputError
from llm.guards import words
from llm.serve import guard
from llm.serve.guard import REDACTED, Check, Guard

LIST = ("bomb", "secret plan", "naïve", "C++")
TEXT = (
    "A Bomb, the secret\n plan; bombs are not, nor is a bombastic naïve C++ man. bomb"
)


def of(policy, listed=LIST):
    return Guard([("words", Check(*words.make(words=listed)), policy)])


def streamed(made, text, seed):
    rng, at, shown = random.Random(seed), 0, []
    stream = made.stream()
    while at < len(text):
        size = rng.randrange(1, 6)
        shown.append(stream.write(text[at : at + size]))
        at += size
    shown.append(stream.write("", last=True))
    assert "".join(shown) == stream.text
    return stream


def by_hand(text):
    """The same list, written as one expression."""
    found = r"\b(bomb|secret\s+plan|naïve)\b|(?<!\w)C\+\+(?!\w)"
    return re.sub(found, REDACTED, text, flags=re.I)


@pytest.mark.parametrize("seed", range(8))
def test_redaction_in_a_stream(seed):
    stream = streamed(of("redact"), TEXT, seed)
    assert stream.text == by_hand(TEXT)
    assert stream.text.count(REDACTED) == 5 == stream.findings["words"]


@pytest.mark.parametrize("seed", range(8))
def test_a_block_shows_nothing_of_it(seed):
    stream = streamed(of("block", ("secret plan",)), TEXT, seed)
    assert stream.blocked == "words" and stream.text == TEXT[: TEXT.index("secret")]


@pytest.mark.parametrize("seed", range(4))
def test_a_log_changes_nothing(seed):
    stream = streamed(of("log"), TEXT, seed)
    assert stream.text == TEXT and stream.findings == {"words": 5}


def test_nothing_configured_passes_everything_at_once():
    stream = Guard().stream()
    assert stream.write("bomb") == "bomb" and not stream.findings


def test_random_texts_and_cuts_agree_with_the_whole():
    rng, made = random.Random(1), of("redact")
    parts = ["bomb", "secret", "plan", " ", "  ", "\n", "naïve", "C++", "x", ".", "s"]
    for seed in range(150):
        text = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 12)))
        assert streamed(made, text, seed).text == by_hand(text), text


def test_a_check_of_whole_texts_looks_every_so_often():
    looks = []

    def find(text):
        looks.append(text)
        return [(0, len(text))] if "angry" in text else []

    stream = Guard([("mood", Check(find, 0, 10), "block")]).stream()
    shown = [stream.write(piece) for piece in ("calm ", "words ", "then ", "angry one")]
    shown.append(stream.write("", last=True))
    assert shown[:3] == ["", "calm words ", ""] and stream.blocked == "mood"
    assert stream.text == "calm words " and looks[0] == "calm words "


def test_a_list_from_a_file(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# not this\nbomb  # a word\n\nsecret plan\n")
    made = guard.build((("words", "redact"),), {"words": {"path": str(path)}})
    assert made.prompt("The SECRET  plan, a bomb.").text == (
        f"The {REDACTED}, a {REDACTED}."
    )


@pytest.mark.parametrize(
    "wanted, knobs, said",
    [
        ((("words", "shout"),), {}, "block or redact or log"),
        (("words",), {}, "pairs of a check"),
        ((("wrods", "block"),), {}, "did you mean 'words'"),
        ((("words", "block"),), {}, "no words"),
        ((("words", "block"),), {"words": {"path": "/no/such"}}, "/no/such"),
    ],
)
def test_bad_configs(wanted, knobs, said):
    with pytest.raises(InputError, match=said):
        guard.build(wanted, knobs)


def test_a_classifier_of_ones_own(tmp_path):
    """Its shares are those of the trained head at the last token, by hand."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np
    from ml_collections import ConfigDict
    from test_convert import CODE

    from llm import config, models, registry, run_dir
    from llm.checkpoint import Checkpoints, LoopState, State
    from llm.guards import classifier
    from llm.nn.contract import plain_inputs
    from llm.tokenizers import sentencepiece_tokenizer

    c = config.debug(config.base())
    c.train.dtype = "float32"
    labels = {"classes": ("code", "prose")}
    c.objective = ConfigDict(registry.spec("objectives", "classify", **labels))
    words_of = sentencepiece_tokenizer.train(
        [CODE], tmp_path / "tokenizer", vocab_size=330
    )
    from llm.precision import FLOAT32

    of, _, init = models.build(
        c.model, c.objective, FLOAT32, words_of.vocab_size, words_of
    )
    params = nn.meta.unbox(jax.jit(init)(jax.random.key(3)))
    checkpoints = Checkpoints(str(tmp_path), ())
    checkpoints.save(State(jnp.int32(1), params, None, None), LoopState(), None)
    checkpoints.close()
    run_dir.claim(str(tmp_path), c.to_dict(), device="cpu", devices=1)

    apply = jax.jit(of.apply)
    texts = ["def f(x):\n    return x", "a", "import os", "words and words again"]
    shares = []
    for text in texts:
        ids = np.array([[*words_of.start(), *words_of.encode(text)]], np.int32)
        own = {name: x for name, x in params.items() if name != "classifier"}
        hidden = apply({"params": own}, plain_inputs(ids)).hidden_BTD[0, -1]
        logits = hidden @ params["classifier"]["kernel"] + params["classifier"]["bias"]
        shares.append(float(jax.nn.softmax(logits)[1]))
    between = (sorted(shares)[1] + sorted(shares)[2]) / 2
    device = jax.devices()[0]
    knobs = {"model_dir": str(tmp_path), "label": "prose", "device": device}
    find, reach, every = classifier.make(threshold=between, **knobs)
    for text, share in zip(texts, shares, strict=True):
        assert find(text) == ([(0, len(text))] if share >= between else [])
    assert (reach, every) == (0, 200) and find("  ") == []
    with pytest.raises(InputError, match="one of code, prose"):
        classifier.make(**knobs | {"label": "poetry"})
