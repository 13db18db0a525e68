"""GGUF: number formats against loops, files against the library, and hostile bytes."""

import json
import struct
import sys

import numpy as np
import pytest
import tiny
from reference_models import build, export, reference_logits, without_padding
from test_hf import CLOSE, abstract, logits

from llm import registry, tree
from llm.errors import InputError
from llm.interop import gguf, gguf_blocks, gguf_llama, gguf_tokenizer, hf, safetensors
from llm.nn.contract import plain_inputs


def half(raw):
    return float(np.frombuffer(bytes(raw), "<f2")[0])


def by_loops(name, raw):
    """One block, a number at a time, after ggml's dequantize_row functions."""
    raw = [int(b) for b in raw]
    if name == "Q8_0":
        return [half(raw[:2]) * (b - 256 * (b > 127)) for b in raw[2:]]
    low, high = [b & 15 for b in raw[2:]], [b >> 4 for b in raw[2:]]
    return [half(raw[:2]) * (q - 8) for q in (*low, *high)]


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0"])
def test_blocks_equal_loops(name):
    pytest.importorskip("gguf")
    rng, form = np.random.default_rng(0), gguf_blocks.find(name)
    count = gguf_blocks._SLAB + 3  # more than are unpacked at once
    raw = rng.integers(0, 256, (count, form.bytes)).astype(np.uint8)
    raw[:, :2] = rng.normal(size=(count, 1)).astype("<f2").view(np.uint8)
    got = gguf_blocks.unpack(raw.reshape(-1), form, (count, form.count))
    for row in (*range(5), count - 1):
        np.testing.assert_allclose(got[row], by_loops(name, raw[row]), rtol=1e-6)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "F16", "BF16", "F32"])
def test_packing_is_as_near_as_its_steps(name):
    pytest.importorskip("gguf")
    x = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    x[0] = 0
    form, raw = gguf_blocks.find(name), gguf_blocks.pack(x, name)
    assert len(raw) == x.size // form.count * form.bytes
    got = gguf_blocks.unpack(np.frombuffer(raw, np.uint8), form, x.shape)
    most = np.abs(x.reshape(-1, 32)).max(axis=1, keepdims=True)
    # Half a step, one where -8 has no opposite, and the scale's own rounding.
    steps = {"Q8_0": 0.5 / 127, "Q4_0": 1 / 8, "F16": 1e-3, "BF16": 4e-3, "F32": 0}
    room = most * (steps[name] + (2e-3 if form.count > 1 else 0))
    assert (np.abs(got - x).reshape(-1, 32) <= room).all()


def test_formats_of_the_library_are_those_of_the_file():
    """Numbers and sizes of a few, from ggml.h."""
    pytest.importorskip("gguf")
    known = {
        2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
        8: ("Q8_0", 32, 34), 12: ("Q4_K", 256, 144), 14: ("Q6_K", 256, 210),
    }  # fmt: skip
    for number, form in known.items():
        assert gguf_blocks.find(number) == (number, *form)
    assert gguf_blocks.find(99) is None and gguf_blocks.find(24) is None  # int8


def test_blocks_need_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    gguf_blocks.formats.cache_clear()
    x = np.ones((2, 32), np.float32)
    assert gguf_blocks.find("F16").bytes == 2 and gguf_blocks.pack(x, "F16")
    with pytest.raises(InputError, match="no package gguf"):
        gguf_blocks.find(8)


KEYS = {
    "general.architecture": "llama",
    "a.text": "grüße",
    "a.yes": True,
    "a.no": False,
    "a.number": 7,
    "a.large": 1 << 40,
    "a.float": 0.25,
    "a.texts": ["a", "", "\u2581b"],
    "a.numbers": [1, -2, 3],
    "a.floats": np.array([0.5, -1.5], np.float32),
}
ARRAYS = {
    "one": (np.arange(3, dtype=np.float32), "F32"),
    "two": (np.linspace(-1, 1, 128).reshape(2, 64).astype(np.float32), "Q8_0"),
    "three": (np.linspace(-1, 1, 12).reshape(2, 2, 3).astype(np.float32), "F16"),
}


def write(path, keys=KEYS, arrays=ARRAYS):
    made = [
        gguf.Made(name, array.shape, form, lambda array=array: array)
        for name, (array, form) in arrays.items()
    ]
    gguf.write_file(path, keys, made)
    return path


def test_what_we_write_we_read(tmp_path):
    held = gguf.open_file(write(tmp_path / "x.gguf"))
    assert held.keys.keys() == KEYS.keys()
    for name, value in KEYS.items():
        np.testing.assert_array_equal(held.keys[name], value)
    for name, (array, form) in ARRAYS.items():
        tensor = held.tensors[name]
        assert (tensor.shape, tensor.format.name) == (array.shape, form)
        np.testing.assert_allclose(tensor.read(), array, atol=5e-3)


@pytest.mark.oracle
def test_what_we_write_the_library_reads(tmp_path):
    library = pytest.importorskip("gguf")
    reader = library.GGUFReader(write(tmp_path / "x.gguf"))
    for name, value in KEYS.items():
        np.testing.assert_array_equal(reader.fields[name].contents(), value)
    assert [t.name for t in reader.tensors] == list(ARRAYS)
    for tensor in reader.tensors:
        array, form = ARRAYS[tensor.name]
        assert tensor.tensor_type.name == form
        assert tuple(tensor.shape[::-1]) == array.shape
        got = library.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_allclose(got.reshape(array.shape), array, atol=5e-3)


@pytest.mark.oracle
def test_what_the_library_writes_we_read(tmp_path):
    library = pytest.importorskip("gguf")
    writer = library.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_uint32("a.number", 7)
    writer.add_float32("a.float", 0.25)
    writer.add_bool("a.yes", True)
    writer.add_array("a.texts", ["a", "b"])
    array = np.linspace(-1, 1, 128).reshape(2, 64).astype(np.float32)
    writer.add_tensor("two", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    held = gguf.open_file(tmp_path / "x.gguf")
    wanted = {"a.number": 7, "a.float": 0.25, "a.yes": True, "a.texts": ["a", "b"]}
    assert {key: held.keys[key] for key in wanted} == wanted
    np.testing.assert_array_equal(held.tensors["two"].read(), array)


def test_files_that_are_cut_anywhere(tmp_path):
    whole = write(tmp_path / "x.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for size in range(len(whole) - 32):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError) as caught:
            gguf.open_file(path)
        assert "\n" not in str(caught.value)


def test_bytes_that_are_wrong_anywhere(tmp_path):
    """A damaged file is one line, or is read: never another error, or much memory."""
    whole = write(tmp_path / "x.gguf").read_bytes()
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "bad.gguf", 0
    for _ in range(600):
        bad = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            bad[at] = rng.choice([0, 1, 255, int(rng.integers(256))])
        path.write_bytes(bad)
        try:
            held = gguf.open_file(path)
            with np.errstate(all="ignore"):
                for tensor in held.tensors.values():
                    tensor.read()
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50


def head(tensors, keys):
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys)


def entry(name=b"t", sizes=(32,), kind=0, offset=0):
    return struct.pack("<Q", len(name)) + name + struct.pack(
        f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset
    )  # fmt: skip


LARGE = 1 << 60
ROOM = bytes(4096)
KEY = head(0, 1) + b"\1" + bytes(7) + b"k"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "fewer bytes"),
        (b"PK\3\4" + bytes(40), "not GGUF"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + ROOM, "version"),
        (head(LARGE, 0) + ROOM, f"{LARGE} tensors"),
        (head(0, LARGE) + ROOM, f"{LARGE} settings"),
        (head(0, 1) + struct.pack("<Q", LARGE) + ROOM, "characters of the name"),
        (KEY + struct.pack("<I", 99) + ROOM, "type 99"),
        (
            KEY + struct.pack("<IIQ", 9, 5, LARGE)
            + ROOM, f"{LARGE} numbers of 'k'",
        ),
        (
            KEY + struct.pack("<IIQ", 9, 9, 1) + ROOM,
            "'k', an array of type 9",
        ),
        (head(1, 0) + entry(kind=77) + ROOM, "number format 77"),
        (head(1, 0) + entry(kind=8, sizes=(33,)) + ROOM, "rows of 33"),
        (head(1, 0) + entry(sizes=(LARGE, 8)) + ROOM, "ending at byte"),
        (head(1, 0) + entry(sizes=(0, LARGE)) + ROOM, "of no size"),
        (head(1, 0) + entry(offset=LARGE) + ROOM, "ending at byte"),
        (head(1, 0) + entry(offset=1) + ROOM, "odd place"),
        (head(1, 0) + entry(sizes=(1,) * 9) + ROOM, "9 dimensions"),
        (head(2, 0) + entry() + entry() + ROOM, "twice"),
        (head(2, 0) + entry() + entry(b"u") + ROOM, "same bytes"),
    ],
)  # fmt: skip
def test_hostile_files(tmp_path, content, message):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        gguf.open_file(path)


CASES = {
    "llama": {},
    "llama 3.1": {},
    "llama linear": {},
    "qwen2": {"windows": ()},
    "qwen3": {"rope_scaling": ("yarn", 4.0, 32.0, 1.0, 8, 1 + 0.1 * np.log(4.0))},
}


def tokenizer_keys(vocab):
    texts = ["<unk>", "<s>", "</s>", *[f"t{i}" for i in range(vocab - 3)]]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": -np.arange(vocab, dtype=np.float32),
        "tokenizer.ggml.token_type": [2, 3, 3] + [1] * (vocab - 3),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def model_file(case, folder, kind="f16", **more):
    """(file, knobs, model, params, vocab) of a tiny model."""
    name, knobs, _, _, _ = build(case)
    knobs = knobs | CASES[case] | more
    name, knobs, of, params, vocab = rebuilt(case, knobs)
    weights = folder / "weights"
    weights.mkdir()
    special = {"max_position_embeddings": 64}
    hf.write(weights, name, knobs, params, vocab, special=special)
    config = json.loads((weights / "config.json").read_text())
    path = folder / "model.gguf"
    keys = tokenizer_keys(vocab)
    gguf_llama.write(path, config, safetensors.open_folder(weights), keys, kind)
    return path, knobs, of, params, vocab


def rebuilt(case, knobs):
    """A case with other knobs, and parameters to match."""
    name, _, of, _, vocab = build(case)
    of = registry.build("models", knobs, vocab_size=of.vocab_size)
    return name, knobs, of, without_padding(tiny.params(of, seed=5), vocab), vocab


@pytest.mark.parametrize("case", CASES)
def test_models_come_back(case, tmp_path):
    path, knobs, of, params, vocab = model_file(case, tmp_path)
    found = gguf_llama.read(gguf.open_file(path))
    assert (found.name, found.vocab_size) == ("llama", vocab)
    for knob, value in found.knobs.items():
        assert value == pytest.approx(knobs[knob]), knob
    back = tree.named_leaves(hf.load_params(found, abstract(of)))
    for leaf, value in tree.named_leaves(params).items():
        value = np.asarray(value)
        vector = "scale" in leaf or "bias" in leaf
        want = value if vector else value.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(back[leaf], want, leaf)


# Their reader takes the size of a head for granted: the width's share, or 128.
REFERENCE_SIZES = {
    "llama": {},
    "qwen2": {"width": 16, "heads": 4, "kv_heads": 2, "head_dim": 4},
    "qwen3": {"width": 16, "heads": 2, "kv_heads": 1, "head_dim": 128},
}


@pytest.mark.oracle
@pytest.mark.parametrize("case", REFERENCE_SIZES)
def test_the_reference_reads_our_files(case, tmp_path):
    """Their reader of GGUF, with its own order of rows, makes the same logits."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")  # which their reader asks for
    import torch

    sizes = REFERENCE_SIZES[case]
    path, _, of, _, vocab = model_file(case, tmp_path, rope_scaling=(), **sizes)
    back = hf.load_params(gguf_llama.read(gguf.open_file(path)), abstract(of))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens = np.random.default_rng(0).integers(3, vocab, (2, 9)).astype(np.int32)
    inputs = plain_inputs(tokens)
    with torch.no_grad():
        want = reference_logits(theirs, inputs).numpy()
    np.testing.assert_allclose(logits(of, back, inputs)[..., :vocab], want, **CLOSE)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("general.architecture", "mamba", "architecture 'mamba'"),
        ("llama.embedding_length", None, "embedding_length None"),
        ("llama.embedding_length", 1 << 50, "settings for a size"),
        ("llama.feed_forward_length", 1 << 30, "settings for a size"),
        ("llama.block_count", 1 << 30, "blocks"),
        ("llama.attention.head_count", 0, "0 heads"),
        ("llama.attention.head_count_kv", [1, 2], "head_count_kv"),
        ("llama.rope.scaling.type", "odd", "rope scaling 'odd'"),
        ("llama.expert_count", 8, "expert_count 8"),
        ("llama.attention.layer_norm_rms_epsilon", "x", "epsilon 'x'"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, key, value, message):
    path, *_ = model_file("llama", tmp_path)
    held = gguf.open_file(path)
    held.keys[key] = np.array(value) if isinstance(value, list) else value
    with pytest.raises(InputError, match=message):
        gguf_llama.read(held)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("model", "bert", "kind 'bert'"),
        ("tokens", None, "without tokenizer.ggml.tokens"),
        ("tokens", ["a", "a"], "does not fit"),
        ("scores", None, "does not fit"),
        ("bos_token_id", 1 << 31, "want an id below"),
    ],
)
def test_tokenizer_settings_that_do_not_fit(tmp_path, key, value, message):
    path, *_ = model_file("llama", tmp_path)
    held = gguf.open_file(path)
    held.keys[f"tokenizer.ggml.{key}"] = value
    with pytest.raises(InputError, match=message):
        gguf_tokenizer.read(held)


def test_models_that_gguf_cannot_hold(tmp_path):
    name, knobs, _, params, vocab = build("mistral")
    export(tmp_path, name, knobs, params, vocab)
    config = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(InputError, match="a mistral, for GGUF"):
        gguf_llama.check(config)
