"""The format against the reference library, and every way to be malformed."""

import json

import ml_dtypes
import numpy as np
import pytest

from llm.errors import InputError
from llm.interop import safetensors
from llm.interop.safetensors import Made, open_file, open_folder, write_file

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.weight": np.arange(4, dtype=np.float16),
    "c": np.array([[1.5, -2.0]], ml_dtypes.bfloat16),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 4), np.float32),
    "mask": np.array([True, False]),
}


def write(path, arrays):
    made = [
        Made(name, array.shape, array.dtype, lambda array=array: array)
        for name, array in arrays.items()
    ]
    write_file(path, made)


def test_what_we_write_the_library_reads(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    write(path, ARRAYS)
    found = library.load_file(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_what_the_library_writes_we_read(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    library.save_file(ARRAYS, path, metadata={"format": "np"})
    found = open_file(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].shape == array.shape and found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name].read(), array)


def raw(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "header, data, message",
    [
        (b"{", b"", "not JSON"),
        (b"[]", b"", "no table"),
        ({"x": {}}, b"", "'x' without dtype"),
        ({"x": entry(dtype="F8")}, b"0" * 8, "'x' of dtype 'F8'"),
        ({"x": entry()}, b"0" * 7, "'x' ending at byte"),
        ({"x": entry(shape=(3,))}, b"0" * 8, r"'x' of shape \(3,\)"),
        ({"x": entry(shape=(-2,), offsets=(0, -8))}, b"", "'x' of shape"),
        ({"x": entry(shape=(2**40, 2**40))}, b"0" * 8, "'x' of shape"),
        ({"x": entry(shape=(1.0, 2))}, b"0" * 8, "'x' of shape"),
        ({"x": entry(), "y": entry(offsets=(4, 12))}, b"0" * 12, "in the same bytes"),
    ],
)
def test_malformed_files(tmp_path, header, data, message):
    path = tmp_path / "x.safetensors"
    raw(path, header, data)
    with pytest.raises(InputError, match=message) as caught:
        open_file(path)
    assert "x.safetensors" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"1234", (2**62).to_bytes(8, "little")])
def test_headers_that_are_not_there(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="a header of"):
        open_file(path)


@pytest.mark.parametrize("cut", [10, 100, -1])
def test_truncated(tmp_path, cut):
    path = tmp_path / "x.safetensors"
    write(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="cut off or damaged"):
        open_file(path)


def index(folder, where):
    text = json.dumps({"weight_map": where})
    (folder / "model.safetensors.index.json").write_text(text)


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/passwd", "a/b", "", ".."])
def test_an_index_stays_in_its_folder(tmp_path, file):
    inside = tmp_path / "model"
    inside.mkdir()
    write(tmp_path / "x.safetensors", ARRAYS)
    index(inside, {"a": file})
    with pytest.raises(InputError, match="want files beside it"):
        open_folder(inside)


def test_indexes(tmp_path):
    with pytest.raises(InputError, match="no weights in"):
        open_folder(tmp_path)
    write(tmp_path / "one.safetensors", {"a": ARRAYS["a"]})
    index(tmp_path, {"a": "one.safetensors"})
    np.testing.assert_array_equal(open_folder(tmp_path)["a"].read(), ARRAYS["a"])
    index(tmp_path, {"b": "one.safetensors"})
    with pytest.raises(InputError, match="without tensor 'b'"):
        open_folder(tmp_path)
    index(tmp_path, {"a": "two.safetensors"})
    with pytest.raises(InputError, match="No such file"):
        open_folder(tmp_path)
    (tmp_path / safetensors._INDEX).write_text('{"weight_map": 3}')
    with pytest.raises(InputError, match="not an index"):
        open_folder(tmp_path)
