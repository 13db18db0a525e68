"""Compressions of every model, pruning by hand, and the run directory they make."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_convert import CONFIGS, foreign_folder

from llm import compress, config, registry, tree
from llm.adapters import named_boxes
from llm.errors import InputError
from llm.inference import import_model, load_model
from llm.inference.decoding import generate
from llm.inference.sampling import Sampling
from llm.nn.contract import plain_inputs, reads_source
from llm.precision import FLOAT32, dense
from llm.workloads import compress as workload

NAMES = registry.choices("compress")


def made_by(name):
    return compress.build({"name": name, **registry.module("compress", name).TINY})


@pytest.mark.parametrize("model", registry.choices("models"))
def test_every_model_in_eight_bits(model):
    """It says what the rounded weights say, and those are near the others."""
    knobs = registry.module("models", model).TINY
    of = registry.build(
        "models", {"name": model, **knobs}, vocab_size=128, policy=FLOAT32
    )
    boxed = jax.eval_shape(lambda: tiny.init(of, jax.random.key(0)))
    axes = {name: box.names for name, box in named_boxes(boxed).items()}
    params = tiny.params(of)
    inputs = plain_inputs(np.arange(10, dtype=np.int32).reshape(1, 10))
    if reads_source(of):
        inputs = inputs._replace(source=inputs)
    made = jax.jit(lambda p: made_by("int8").apply(p, axes))(params)
    plain = dense(made)
    assert jax.tree.structure(plain) == jax.tree.structure(params)
    share = 1 if model == "moe" else 0.6  # whose experts stay as they are
    assert compress.bits(made) < share * compress.bits(params)
    for name, leaf in tree.named_leaves(plain).items():
        whole = tree.named_leaves(params)[name]
        assert np.abs(leaf - whole).max() <= np.abs(whole).max() / 127
    want = tiny.logits(of, plain, inputs)
    found = tiny.logits(of, made, inputs)
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-3)


AXES = {
    "layer/mlp/up/kernel": ("layers", "embed", "mlp"),
    "layer/attention/out/kernel": ("layers", "heads", "head_dim", "embed"),
    "layer/norm/scale": ("layers", "norm"),
    "embed/embedding": ("vocab", "embed"),
}


def some():
    rng = np.random.default_rng(0)
    shapes = ((2, 8, 6), (2, 2, 4, 6), (2, 6), (10, 6))
    return {
        name: jnp.asarray(rng.normal(size=shape).astype(np.float32))
        for name, shape in zip(AXES, shapes, strict=True)
    }


def test_the_smallest_of_each_matrix_are_gone():
    of = compress.build({"name": "prune_magnitude", "share": 0.25})
    made = of.apply(some(), AXES)
    for name, leaf in some().items():
        if not name.endswith("kernel"):
            np.testing.assert_array_equal(made[name], leaf)
            continue
        for layer in range(2):
            flat = np.asarray(leaf[layer]).ravel()
            gone = np.argsort(np.abs(flat))[: len(flat) // 4]
            want = flat.copy()
            want[gone] = 0
            np.testing.assert_array_equal(np.asarray(made[name][layer]).ravel(), want)


def test_two_of_four_along_the_inputs():
    made = compress.build("prune_nm").apply(some(), AXES)
    for name in ("layer/mlp/up/kernel", "layer/attention/out/kernel"):
        was = np.asarray(some()[name]).reshape(2, 8, 6)
        now = np.asarray(made[name]).reshape(2, 8, 6)
        for layer in range(2):
            for output in range(6):
                for start in (0, 4):
                    four = was[layer, start : start + 4, output]
                    kept = set(np.argsort(-np.abs(four))[:2])
                    want = [x if i in kept else 0 for i, x in enumerate(four)]
                    found = now[layer, start : start + 4, output]
                    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "prune_magnitude", "share": 1.0}, "share 1.0"),
        ({"name": "prune_nm", "keep": 5}, "keep 5 of 4"),
    ],
)
def test_refused(spec, message):
    with pytest.raises(InputError, match=message):
        compress.build(spec)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("compress")
    foreign_folder(folder / "hf")
    c = config.base()
    import_model.convert(
        str(folder / "hf"), str(folder / "run"), c.to_dict(), jax.devices("cpu")[0]
    )
    return folder


def compressed(source, workdir, method, **knobs):
    c = config.load(str(CONFIGS / "x"), "compress", f"model={source},method={method}")
    c.compress.method.update(knobs)
    c.compress.text = str(CONFIGS / "compress.py")
    workload.run(c.lock(), str(workdir))
    return json.loads((workdir / "compress.json").read_text())


@pytest.mark.parametrize("method", NAMES)
def test_a_run_directory_like_any_other(method, imported, tmp_path):
    run = imported / "run"
    result = compressed(run, tmp_path / "small", method)
    loaded = load_model.load(str(tmp_path / "small"), jax.devices()[0])
    before = load_model.load(str(run), jax.devices()[0])
    if method.startswith("int"):
        assert result["after"]["bits"] < 0.5 * result["before"]["bits"]
    else:
        assert result["zeros"] > 0.4
    assert result["after"]["bits"] == compress.bits(loaded.params)
    boxes = named_boxes(load_model.boxes(before))
    want = compress.build(registry.spec("compress", method)).apply(
        before.params, {name: box.names for name, box in boxes.items()}
    )
    for name, leaf in tree.named_leaves(loaded.params).items():
        np.testing.assert_allclose(leaf, tree.named_leaves(want)[name], rtol=1e-6)
    knobs = {"knobs": Sampling(temperature=0.0), "max_tokens": 8}
    made = generate(
        *load_model.for_decoding(loaded), loaded.tokenizer, ["a b"], **knobs
    )
    plain = loaded._replace(params=dense(loaded.params))
    same = generate(*load_model.for_decoding(plain), loaded.tokenizer, ["a b"], **knobs)
    assert made == same
    with pytest.raises(InputError, match="holds a compressed model"):
        compressed(run, tmp_path / "small", method)
    if method.startswith("int"):
        with pytest.raises(InputError, match="a model in few bits"):
            compressed(tmp_path / "small", tmp_path / "again", "int8")


def test_nothing_to_compress(tmp_path):
    with pytest.raises(InputError, match="nothing to compress"):
        compressed("", tmp_path / "x", "int8")
