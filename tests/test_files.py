"""A write is seen whole or not at all, also when it is killed; bad disks are input."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from llm import files
from llm.errors import InputError


def test_writes_and_replaces_a_file(tmp_path):
    path = tmp_path / "a" / "b.txt"
    files.write_text(path, "one\r\né")
    files.write_text(path, "two\r\né")
    assert path.read_bytes() == "two\r\né".encode()
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    files.write_text(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"No space left.*free some space"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_disk_errors_are_input_errors_of_one_line(tmp_path, code):
    with pytest.raises(InputError) as caught, files.writing(tmp_path / "x"):
        raise OSError(code, os.strerror(code))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_other_os_errors_stay_what_they_are(tmp_path):
    with pytest.raises(OSError) as caught, files.writing(tmp_path):
        raise OSError(errno.EIO, "bad disk")
    assert not isinstance(caught.value, InputError)


def test_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="parents are folders"):
        files.write_text(tmp_path / "file" / "x", "")
    with pytest.raises(InputError), files.folder(tmp_path / "file" / "x"):
        pass


@pytest.mark.parametrize("path", ["/proc/llm", "/proc/llm/deeper", "/dev/null/llm"])
def test_folder_that_cannot_be_made(path):
    with pytest.raises(InputError, match=path):
        files.make_folder(path)
    with pytest.raises(InputError, match=path):
        files.write_text(path + "/file", "")


def test_folder_replaces_the_whole(tmp_path):
    path = tmp_path / "out"
    for name in ("first", "second"):
        with files.folder(path) as partial:
            (partial / name).write_text(name)
            assert not (path / name).exists()
    assert [p.name for p in path.iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_folder_that_fails_leaves_nothing_new(tmp_path):
    path = tmp_path / "out"
    with files.folder(path) as partial:
        (partial / "old").write_text("")
    with pytest.raises(ZeroDivisionError), files.folder(path) as partial:
        (partial / "new").write_text("")
        raise ZeroDivisionError
    assert [p.name for p in path.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


_WRITER = """
import sys
from llm import files
path, text = sys.argv[1], "x" * 300_000
i = 0
while True:
    i += 1
    with files.folder(path) as partial:
        for name in ("a", "b"):
            (partial / name).write_text(f"{i} {text}")
    files.write_text(path + ".txt", f"{i} {text}")
    print(i, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.0007, 0.0023])
def test_killed_writer_leaves_whole_content(tmp_path, delay):
    path = tmp_path / "out"
    command = [sys.executable, "-c", _WRITER, str(path)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "1\n"
        time.sleep(delay)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert (tmp_path / "out.txt").stat().st_size > 300_000
    if path.exists():  # else it was killed between the two renames: nothing is there
        a, b = (path / "a").read_text(), (path / "b").read_text()
        assert a == b and len(a) > 300_000
    with files.folder(path) as partial:
        assert not list(partial.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) in (
        ["out", "out.txt"],
        [".out.txt.partial", "out", "out.txt"],
    )
