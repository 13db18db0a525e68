"""Vectors of texts against each text alone, pooled in numpy; and the workload."""

import dataclasses
import functools
import itertools
import json

import jax
import numpy as np
import pytest
from reference_models import build
from test_convert import make_run

from llm import config
from llm.errors import InputError
from llm.inference.embeddings import POOLINGS, embedder
from llm.nn.contract import plain_inputs
from llm.workloads import embed as workload

CASES = ("llama", "bert", "t5", "gru")
TEXTS = ["5 6 7", "8", "9 9 9 9 9 9 9 9 9 9 9", "", "3 4", "5 6 7 8 9 10 11 12 13"]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Texts are numbers with spaces between, marked at both ends."""

    around: tuple = (1, 2)

    def start(self):
        return list(self.around[:1])

    def finish(self):
        return list(self.around[1:])

    def encode_batch(self, texts):
        return [[int(word) for word in text.split()] for text in texts]


@functools.partial(jax.jit, static_argnums=0)
def hidden(of, params, inputs):
    """States of rows without padding."""
    if hasattr(of, "encode"):
        return of.apply({"params": params}, inputs, method="encode")[0]
    return of.apply({"params": params}, inputs).hidden_BTD


def alone(of, params, text, pooling, normalise, most=99):
    """A text by itself, pooled by hand."""
    ids = [1, *[int(word) for word in text.split()][: most - 2], 2]
    states_TD = np.asarray(
        hidden(of, params, plain_inputs(np.array([ids], np.int32)))[0], np.float64
    )
    if pooling == "mean":
        made = sum(states_TD) / len(ids)
    else:
        made = states_TD[0 if pooling == "first" else len(ids) - 1]
    return made / np.sqrt((made**2).sum()) if normalise else made


@pytest.fixture(scope="module", params=CASES)
def model(request):
    _, _, of, params, _ = build(request.param)
    return of, params


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("normalise", [True, False])
def test_a_vector_is_that_of_the_text_alone(model, pooling, normalise):
    of, params = model
    knobs = {"pooling": pooling, "normalise": normalise, "max_tokens": 24}
    made = embedder(of, params, Numbers(), **knobs)(TEXTS)
    want = [alone(of, params, text, pooling, normalise) for text in TEXTS]
    assert made.vectors.dtype == np.float32 and made.cut == 0
    np.testing.assert_allclose(made.vectors, want, rtol=1e-4, atol=1e-5)


def test_batch_mates_change_nothing(model):
    of, params = model
    for size, texts in ((1, TEXTS), (2, TEXTS), (4, TEXTS[::-1])):
        embed = embedder(of, params, Numbers(), max_tokens=24, batch_size=size)
        made = embed(texts).vectors[:: -1 if size == 4 else 1]
        want = embedder(of, params, Numbers(), max_tokens=24)(TEXTS).vectors
        np.testing.assert_allclose(made, want, rtol=1e-5, atol=1e-6)


def test_long_texts_keep_what_stands_around_them(model):
    of, params = model
    knobs = {"pooling": "last", "normalise": False}
    made = embedder(of, params, Numbers(), max_tokens=6, **knobs)(TEXTS)
    want = [alone(of, params, text, **knobs, most=6) for text in TEXTS]
    assert made.cut == 2
    np.testing.assert_allclose(made.vectors, want, rtol=1e-4, atol=1e-5)


def test_vectors_that_cannot_be():
    _, _, of, params, _ = build("bert")
    for knobs, message in [
        ({"max_tokens": 24, "pooling": "max"}, "pooling 'max'"),
        ({"max_tokens": 2}, "max_tokens 2"),
        ({"max_tokens": 99}, f"at most the model's {of.cfg.context} positions"),
    ]:
        with pytest.raises(InputError, match=message):
            embedder(of, params, Numbers(), **knobs)
    embed = embedder(of, params, Numbers(around=()), max_tokens=24)
    with pytest.raises(InputError, match="an empty text"):
        embed(["3", ""])


def test_most_alike_are_those_of_all_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(23, 5)).astype(np.float32)
    monkeypatch.setattr(workload, "_BLOCK", 7)
    cosines = {
        (a, b): vectors[a] @ vectors[b]
        / np.sqrt((vectors[a] ** 2).sum() * (vectors[b] ** 2).sum())
        for a, b in itertools.combinations(range(23), 2)
    }  # fmt: skip
    want = sorted(cosines, key=cosines.get, reverse=True)[:9]
    found = workload.most_alike(vectors, 9)
    assert [(a, b) for a, b, _ in found] == want
    for a, b, cosine in found:
        assert cosine == pytest.approx(cosines[a, b], abs=1e-6)
    assert len(workload.most_alike(vectors[:3], 9)) == 3
    assert workload.most_alike(vectors[:1], 9) == []


def embed_config(folder, **knobs):
    c = config.base("embed")
    c.embed.update(model_dir=str(folder), **knobs)
    return c.lock()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "trained")


def test_a_file_of_texts(trained, tmp_path, capsys):
    texts = ["def f(x):", "import os", "def f(x):", "class A:\tpass"]
    (tmp_path / "texts").write_text("\n".join(texts) + "\n")
    c = embed_config(trained, path=str(tmp_path / "texts"), pairs=2)
    workload.run(c, str(tmp_path / "out"))
    made = np.load(tmp_path / "out" / "embeddings.npy", allow_pickle=False)
    assert made.shape == (4, 32) and made.dtype == np.float32
    np.testing.assert_allclose((made**2).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(made[0], made[2], rtol=1e-5, atol=1e-6)
    held = json.loads((tmp_path / "out" / "embed.json").read_text())
    assert (held["texts"], held["width"], held["cut"], held["step"]) == (4, 32, 0, 7)
    first, second = held["most_alike"]
    assert first["texts"] == ["def f(x):"] * 2 and first["cosine"] > 0.9999
    assert second["cosine"] == pytest.approx(float(max(made[0] @ made[1],
        made[0] @ made[3], made[1] @ made[3])), abs=1e-5)  # fmt: skip
    assert "1.000  def f(x):" in capsys.readouterr().out
    # The texts in the config are the same texts.
    workload.run(embed_config(trained, texts=tuple(texts)), str(tmp_path / "again"))
    again = np.load(tmp_path / "again" / "embeddings.npy", allow_pickle=False)
    np.testing.assert_array_equal(again, made)


def test_what_is_refused_leaves_nothing(trained, tmp_path):
    for name, content in (("gap", b"a\n\nb\n"), ("empty", b""), ("odd", b"\xff\n")):
        (tmp_path / name).write_bytes(content)
    texts = ("a",)
    for knobs, message in [
        ({}, "no texts"),
        ({"texts": texts, "path": str(tmp_path / "gap")}, "path and embed.texts"),
        ({"path": str(tmp_path / "gap")}, "text 2 in .*gap without a word"),
        ({"texts": ("a", " \t")}, "text 2 in embed.texts"),
        ({"path": str(tmp_path / "empty")}, "no text at all"),
        ({"path": str(tmp_path / "odd")}, "not UTF-8"),
        ({"path": str(tmp_path / "none")}, "none"),
        ({"texts": texts, "pooling": "max"}, "embed.pooling 'max'"),
        ({"texts": texts, "batch_size": 0}, "batch_size 0"),
        ({"texts": texts, "max_tokens": 1}, "max_tokens 1"),
    ]:
        c = embed_config(trained, **knobs)
        with pytest.raises(InputError, match=message) as caught:
            config.check(c)
            workload.run(c, str(tmp_path / "out"))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"no config\.json"):
        workload.run(embed_config(tmp_path, texts=texts), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
