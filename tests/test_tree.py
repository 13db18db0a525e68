"""Names, masks and counts of a written-out tree."""

import jax
import jax.numpy as jnp
import numpy as np

from llm import tree

TREE = {
    "embed": {"embedding": np.full((4, 3), 2.0, np.float32)},
    "stack": [{"kernel": np.ones((2, 5), np.float16)}, {"scale": np.zeros(7)}],
}


def test_names():
    assert list(tree.named_leaves(TREE)) == [
        "embed/embedding", "stack/0/kernel", "stack/1/scale",
    ]  # fmt: skip
    assert tree.named_leaves(TREE)["stack/0/kernel"] is TREE["stack"][0]["kernel"]


def test_matches_whole_names():
    assert tree.matches(TREE, ".*(kernel|embedding)") == {
        "embed": {"embedding": True},
        "stack": [{"kernel": True}, {"scale": False}],
    }
    assert not any(jax.tree.leaves(tree.matches(TREE, "kernel")))


def test_map_named_takes_more_trees():
    doubled = jax.tree.map(lambda x: 2 * x, TREE)
    got = tree.map_named(lambda name, a, b: (name, float((a + b).sum())), TREE, doubled)
    assert got["embed"]["embedding"] == ("embed/embedding", 72.0)
    assert got["stack"][1]["scale"] == ("stack/1/scale", 0.0)


def test_counts():
    assert tree.count(TREE) == 12 + 10 + 7
    assert tree.size_bytes(TREE) == 12 * 4 + 10 * 2 + 7 * 8
    assert tree.count({"scalar": jax.ShapeDtypeStruct((), jnp.int32)}) == 1


def test_global_norm():
    np.testing.assert_allclose(tree.global_norm(TREE), (12 * 4 + 10) ** 0.5, rtol=1e-6)
    # 300 squared does not fit a float16.
    wide = {"x": jnp.full(4, 300, jnp.float16)}
    np.testing.assert_allclose(tree.global_norm(wide), 600, rtol=1e-6)
