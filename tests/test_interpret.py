"""A look inside against computations written out, and the page in a real decoder."""

import base64
import io

import jax
import numpy as np
import pytest
import tiny
from tiny import V

from llm.inference import interpretation
from llm.nn.contract import plain_inputs
from llm.reports import interpret_page


@pytest.fixture(scope="module")
def given():
    of = tiny.model()
    ids = np.random.default_rng(0).integers(1, V, (1, 7)).astype(np.int32)
    return of, tiny.params(of), plain_inputs(ids)


def test_the_last_layer_says_what_the_model_says(given):
    of, params, inputs = given
    look = interpretation.look(of, params, inputs, top=4)
    logits = np.asarray(tiny.logits(of, params, inputs))[0]
    shares = np.asarray(jax.nn.softmax(logits))
    assert look.top_ids.shape == (of.layers, 7, 4)
    for t in range(7):
        order = np.argsort(-shares[t])[:4]
        assert look.top_ids[-1, t].tolist() == order.tolist()
        np.testing.assert_allclose(look.top_shares[-1, t], shares[t][order], rtol=1e-4)


def test_the_first_layer_says_what_a_model_of_one_layer_says(given):
    """Cut after a layer, norm and head as they are: the lens, by definition."""
    of, params, inputs = given
    first = jax.tree.map(lambda x: x[:1], params["stack"])
    short = tiny.model(layers=1)
    logits = np.asarray(tiny.logits(short, params | {"stack": first}, inputs))[0]
    look = interpretation.look(of, params, inputs, top=1)
    assert look.top_ids[0, :, 0].tolist() == logits.argmax(-1).tolist()


def test_attention_is_that_of_the_formula(given):
    """The first layer's weights, written out in numpy for one head."""
    of, params, inputs = given
    got = interpretation.look(of, params, inputs).attention["attention"]
    assert got.shape == (of.layers, of.cfg.heads, 7, 7)
    np.testing.assert_allclose(got.sum(-1), 1, rtol=1e-5)
    assert (np.triu(got, 1) == 0).all()
    layer = jax.tree.map(lambda x: np.asarray(x[0], np.float64), params["stack"])
    layer = layer["layer"]

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale

    x = norm(
        np.asarray(params["embed"]["embedding"])[inputs.tokens_BT[0]],
        layer["attention_norm"]["scale"],
    )
    part = layer["attention"]
    H, base = of.cfg.head_dim, of.cfg.rope_base
    angle = np.arange(7)[:, None] * base ** (-np.arange(H // 2) / (H // 2))

    def heads(name, n):
        y = norm(x @ part[name]["kernel"][:, n], part[f"{name}_norm"]["scale"])
        a, b = y[:, : H // 2], y[:, H // 2 :]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    for n in range(of.cfg.heads):
        scores = heads("query", n) @ heads("key", n // 2).T / np.sqrt(H)
        scores = np.where(np.tril(np.ones((7, 7))) > 0, scores, -np.inf)
        want = np.exp(scores - scores.max(-1, keepdims=True))
        want /= want.sum(-1, keepdims=True)
        np.testing.assert_allclose(got[0, n], want, rtol=1e-4, atol=1e-5)


TABLE = np.array(
    [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1], [9, 0, 0]], float
)


def test_neighbours_and_analogies():
    near = interpretation.neighbours(TABLE, TABLE[0], 3, without=(0,))
    assert [i for i, _ in near] == [6, 2, 4]  # lengths do not count
    np.testing.assert_allclose([c for _, c in near], [1, 0.5**0.5, 0.5**0.5])
    # From 0 to 2 the second axis comes in; so it does from 4.
    (best, _), *_ = interpretation.analogy(TABLE, 0, 2, 4, 3)
    assert best == 5


def test_a_picture_is_a_picture():
    image = pytest.importorskip("PIL.Image")
    shares = np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0]])
    uri = interpret_page.picture(shares)
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    found = np.asarray(image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert found.shape == (2, 3, 3)
    assert found[0, 0].tolist() == [18, 60, 140] and found[0, 1].tolist() == [
        250,
        251,
        253,
    ]
    assert found[0, 0].sum() < found[1, 1].sum() < found[1, 0].sum() < found[0, 2].sum()


def test_the_page_escapes(given):
    of, params, inputs = given
    attention = interpretation.look(of, params, inputs).attention
    result = {
        "model_dir": "<run>", "step": 1, "read": ["<r>"], "tokens": ["<b>"] * 7,
        "lens": [[[["<i>", 0.9]]] * 7] * 2,
        "neighbours": [{"word": "<u>", "near": [["<s>", 0.5]]}], "analogies": [],
    }  # fmt: skip
    html = interpret_page.write(result, attention)
    for word in ("<run>", "<b>", "<i>0", "<u>", "<s>"):
        assert f">{word}" not in html
    assert html.count("<img ") == of.layers * of.cfg.heads
