"""The one einsum and the matrix product against plain jnp and float64 numpy."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import llm
from llm import precision
from llm.nn.weights import einsum
from llm.precision import FLOAT32, Half, Policy, matmul, row_major, transposed

SIZES = dict(zip("BTDNHFVKE", (2, 5, 6, 4, 3, 7, 9, 2, 8), strict=True))
SOURCE = pathlib.Path(llm.__file__).parent
# Every contraction that the models ask of the one einsum; some modules have products of
# another kind, that are not its affair.
OTHERS = re.compile(r'(?:jnp\.einsum|_product)\(\s*"[^"]+"')
SPECS = sorted(
    {
        spec
        for file in (SOURCE / "nn", SOURCE / "models")
        for path in file.glob("*.py")
        for spec in re.findall(
            r'"([A-Z]+,[A-Z]+->[A-Z]+)"', OTHERS.sub("", path.read_text())
        )
    }
)
BFLOAT16 = Policy("bfloat16", "cpu")


def operands(spec, seed=0):
    rng = np.random.default_rng(seed)
    x, kernel = spec.partition("->")[0].split(",")
    return [
        rng.normal(size=[SIZES[letter] for letter in term]).astype(np.float32)
        for term in (x, kernel, spec.partition("->")[2])
    ]


def test_specs_are_found():
    assert {"BTD,DNH->BTNH", "BTNH,NHD->BTD", "BTD,DF->BTF"} <= set(SPECS)


@pytest.mark.parametrize("spec", SPECS)
def test_einsum_and_its_gradient(spec):
    x, kernel, weight = operands(spec)

    def ours(x, kernel):
        return jnp.sum(einsum(spec, x, kernel, FLOAT32) * weight)

    def plain(x, kernel):
        return jnp.sum(jnp.einsum(spec, x, kernel, precision="highest") * weight)

    got = einsum(spec, x, kernel, FLOAT32)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.einsum(spec, x, kernel), rtol=1e-5, atol=1e-5)
    for a, b in zip(
        jax.jit(jax.grad(ours, (0, 1)))(x, kernel),
        jax.jit(jax.grad(plain, (0, 1)))(x, kernel),
        strict=True,
    ):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_bfloat16_rounds_operands_only(spec):
    """Operands have 8 bits, so one product is off by 2**-8 at most; sums are exact."""
    x, kernel, weight = operands(spec, seed=1)

    def rounded(array):
        return np.asarray(jnp.asarray(array).astype(jnp.bfloat16), np.float64)

    got, pull = jax.vjp(lambda x, k: einsum(spec, x, k, BFLOAT16), x, kernel)
    assert got.dtype == jnp.float32
    exact = np.einsum(spec, rounded(x), rounded(kernel))
    np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-5)
    dx, dkernel = pull(jnp.asarray(weight))
    terms, _, out = spec.partition("->")
    first, second = terms.split(",")
    want_x = np.einsum(f"{out},{second}->{first}", rounded(weight), rounded(kernel))
    want_k = np.einsum(f"{first},{out}->{second}", rounded(x), rounded(weight))
    assert dx.dtype == dkernel.dtype == jnp.float32
    np.testing.assert_allclose(dx, want_x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dkernel, want_k, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", ["BTD,ND->BTN", "BTD,BDN->BTN", "DBT,DN->BTN"])
def test_other_forms_are_refused(spec):
    with pytest.raises(ValueError, match="trailing axes against leading ones"):
        einsum(spec, jnp.zeros((2, 5, 6)), jnp.zeros((6, 4)), FLOAT32)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_policy_table(platform, dtype):
    policy = Policy(dtype, platform)
    assert policy.operands == jnp.dtype(dtype)
    wide = platform == "cpu" or dtype == "float32"
    assert policy.activations == jnp.dtype("float32" if wide else "bfloat16")


@pytest.mark.parametrize("policy", [FLOAT32, BFLOAT16], ids=["float32", "bfloat16"])
def test_products_and_layouts(policy):
    rng = np.random.default_rng(2)
    a_MK = rng.normal(size=(3, 4, 5)).astype(np.float32)
    b_KN = rng.normal(size=(3, 5, 6)).astype(np.float32)
    a, b = (
        np.asarray(jnp.asarray(x).astype(policy.dtype), np.float64)
        for x in (a_MK, b_KN)
    )
    got = jax.jit(lambda a, b: row_major(matmul(a, b, policy), policy))(a_MK, b_KN)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, a @ b, rtol=1e-5, atol=1e-6)
    turned = jax.jit(lambda a: transposed(a, policy))(a_MK)
    assert turned.dtype == policy.operands
    np.testing.assert_array_equal(np.asarray(turned, np.float64), a.swapaxes(-1, -2))


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_halves_stand_for_rounded_numbers(rows):
    """Products and look-ups against numpy in float64 with the rounded array."""
    rng = np.random.default_rng(rows)
    x_MK = rng.normal(size=(rows, 40)).astype(np.float32)
    w_KN = rng.normal(size=(40, 24)).astype(np.float32)
    rounded_KN = np.asarray(jnp.asarray(w_KN, jnp.bfloat16), np.float64)
    half = Half.of(jnp.asarray(w_KN))
    assert half.bits.dtype == jnp.uint16 and half.shape == (40, 24)
    few = rows < 16
    x = x_MK if few else np.asarray(jnp.asarray(x_MK, jnp.bfloat16), np.float64)
    got = matmul(x_MK, half, FLOAT32)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, x @ rounded_KN, rtol=1e-5, atol=1e-4)
    other = matmul(x_MK[:, :24], half.T, FLOAT32)
    np.testing.assert_allclose(other, x[:, :24] @ rounded_KN.T, rtol=1e-5, atol=1e-4)
    ids = np.array([[0, 39, 99]])
    np.testing.assert_array_equal(half.take(ids), rounded_KN[[[0, 39, 39]]])
    folded = einsum(
        "BTD,DNH->BTNH", x_MK[None], Half.of(w_KN.reshape(40, 4, 6)), FLOAT32
    )
    np.testing.assert_allclose(
        folded, (x @ rounded_KN).reshape(1, rows, 4, 6), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("turned", [False, True])
def test_large_matrices_are_multiplied_in_chunks(monkeypatch, turned):
    """Chunks that do not divide the columns, against the product at once."""
    rng = np.random.default_rng(0)
    x_MK = rng.normal(size=(2, 3, 40)).astype(np.float32)
    w_KN = rng.normal(size=(40, 27)).astype(np.float32)
    half = Half.of(jnp.asarray(w_KN.T)).T if turned else Half.of(jnp.asarray(w_KN))
    want = matmul(x_MK, half, FLOAT32)
    monkeypatch.setattr(precision, "_CHUNK", 40 * 4)
    got = jax.jit(lambda x: matmul(x, half, FLOAT32))(x_MK)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert "while" in jax.jit(half.multiplied).lower(x_MK).as_text()


def test_halves_where_nobody_expects_them_are_refused():
    with pytest.raises(TypeError):
        jnp.add(Half.of(jnp.ones(3)), 1.0)
