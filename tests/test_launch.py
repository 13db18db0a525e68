"""launch/tpu.sh against a gcloud that fails as the real one does (`fake_gcloud.py`)."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = """
# A comment.
NAME=llm
ZONE=us-west4-a
TYPE=v5litepod-8
QUEUED=yes
SPOT=yes
COMMAND=--config=configs/125m.py --workdir='runs/a b' --config.mesh="(('data',-1),)"
"""
# What a run on a worker does: it takes a number of the plan, waits, and ends with it.
ENDS = """
import fcntl, json, os, pathlib, sys, time
folder = pathlib.Path(os.environ["FAKE"])
with (folder / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    ends = json.loads((folder / "ends.json").read_text())
    code = ends.pop(0)
    (folder / "ends.json").write_text(json.dumps(ends))
time.sleep(30 if code == "long" else 0.2)
sys.exit(code)
"""


@pytest.fixture
def cloud(tmp_path):
    """From words, a plan and how runs end to (exit code, output, calls, folder)."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gcloud").write_text((ROOT / "tests/fake_gcloud.py").read_text())
    (tmp_path / "bin/gcloud").chmod(0o755)
    # The interpreter itself: what else is called python3 may be a slow script.
    (tmp_path / "bin/python3").symlink_to(os.path.realpath(sys.executable))
    # The script archives the commit of its checkout: here, one that is small.
    code = tmp_path / "code"
    shutil.copytree(ROOT / "launch", code / "launch")
    (code / "llm/planning").mkdir(parents=True)
    shutil.copy(ROOT / "llm/planning/flops.py", code / "llm/planning")
    git = ["git", "-C", str(code), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "ends.py").write_text(ENDS)
    settings = tmp_path / "settings"
    settings.write_text(f"{SETTINGS}LOGS={tmp_path / 'logs'}\n")

    def run(*words, ends=(0, 0), more="", path="", **plan):
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        (tmp_path / "ends.json").write_text(json.dumps(ends))
        with settings.open("a") as file:
            file.write(more)
        made = subprocess.run(
            [code / "launch/tpu.sh", f"--settings={settings}", *words],
            env={
                "PATH": path or f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "HOME": str(tmp_path), "FAKE": str(tmp_path),
                "LAUNCH_PAUSE": "0.1", "LAUNCH_PATIENCE": "4",
                "LAUNCH_CRASHES": "2",
            },
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        calls = tmp_path / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        verbs = [" ".join(json.loads(line)[2:4]) for line in lines]
        return made.returncode, made.stdout + made.stderr, verbs, tmp_path

    return run


def count(calls, verb):
    return sum(call.endswith(verb) for call in calls)


def test_a_run_from_nothing_to_its_logs(cloud):
    code, said, calls, folder = cloud("watch")
    assert code == 0, said
    assert calls[:3] == ["tpu-vm describe"] * 2 + ["queued-resources describe"]
    assert count(calls, "create") == 1 and count(calls, "delete") == 0
    words = "-m llm.main --config=configs/125m.py --workdir=runs/a b"
    assert (folder / "commands").read_text().splitlines() == [
        f"{words} --config.mesh=(('data',-1),)"
    ] * 2
    for worker in "01":
        assert "ran" in (folder / f"logs/llm/worker-{worker}.log").read_text()
    assert "$9.60 an hour at most" in said and "is still there" in said


def test_no_chips_no_connection_preempted_saved_and_done(cloud):
    """The VM is taken away while a run goes on, and one run ends with 75."""
    code, said, calls, folder = cloud(
        "watch",
        create=["stockout", "stockout"],
        scp=[255, 255],
        ssh=[255],
        # Looks: absent, five of waiting and of the run; then it is taken away.
        state=["", "", "", "", "", "", "", "", "", "PREEMPTED"],
        ends=["long", "long", 75, 75, 0, 0],
    )
    assert code == 0, said
    assert count(calls, "create") == 4 and count(calls, "delete") == 1
    assert "is gone; asking for another" in said
    assert "preempted and saved; going on" in said
    assert len((folder / "commands").read_text().splitlines()) == 6
    assert not json.loads((folder / "ends.json").read_text())


LOST = "lies on the own disk of the VM"


@pytest.mark.parametrize(
    ("workdir", "mount", "lost"),
    [
        ("runs/a", "", True),  # in the home of the worker
        ("/mnt/disks/runs/a", "", True),  # what tpu.example has: nothing is mounted
        (
            "/mnt/disks/a",
            "mountpoint -q /mnt/disks || mount /dev/sdb /mnt/disks",
            False,
        ),
        ("'/mnt/disks/a b'", "sudo mount /dev/sdb /mnt/disks/;", False),
        ("/mnt/disks", "mount /dev/sdb /mnt/disks", False),
        ("runs/a", "mount /dev/sdb /mnt/disks", True),
        ("/mnt/disks2/a", "mount /dev/sdb /mnt/disks", True),
        ("/dev/sdb/a", "mount /dev/sdb /mnt/disks", True),
        ("gs://bucket/a", "", False),
    ],
)
def test_a_run_directory_that_goes_with_its_vm(cloud, workdir, mount, lost):
    """One line says so, before anything is asked for."""
    more = f"COMMAND=--config=a.py --workdir={workdir} --config.seed=1\nMOUNT={mount}\n"
    code, said, _, _ = cloud("watch", "--dry-run", more=more)
    assert code == 0
    warned = [line for line in said.splitlines() if LOST in line]
    assert len(warned) == lost
    assert all("MOUNT" in line and "DISK" in line for line in warned)
    assert LOST not in cloud("delete", "--dry-run")[1]


def test_the_example_settings_warn(cloud, tmp_path):
    shutil.copy(ROOT / "launch/tpu.example", tmp_path / "example")
    _, said, _, _ = cloud("create", "--dry-run", f"--settings={tmp_path / 'example'}")
    assert LOST in said


def test_a_quota_does_not_mend_itself(cloud):
    code, said, calls, _ = cloud("watch", create=["quota"])
    assert code == 2 and count(calls, "create") == 1
    assert "Quota limit" in said and said.strip().endswith("see the lines above")
    code, said, _, _ = cloud("create", create=["stockout"])
    assert code == 2 and "no v5litepod-8 in us-west4-a now" in said


def test_a_run_that_fails(cloud):
    """Its exit code is that of the run; a worker that waits does not hide it."""
    code, said, _, folder = cloud("watch", ends=[1, "long"])
    assert code == 1, said
    assert (folder / "logs/llm/worker-1.log").exists()
    cloud("delete")


def test_a_vm_that_does_not_answer(cloud):
    code, said, _, _ = cloud("watch", ssh=["", "", *[255] * 9], ends=["long", "long"])
    assert code == 2 and "no answer of llm in 4 looks" in said
    cloud("delete")


def test_a_run_that_crashes_goes_on(cloud):
    """One that hung, and one whose worker was killed while the other noticed."""
    code, said, calls, folder = cloud("watch", ends=[76, 76, 137, 134, 0, 0])
    assert code == 0, said
    assert "crashed with exit code 76, time 1" in said and "time 2" in said
    assert count(calls, "create") == 1
    assert len((folder / "commands").read_text().splitlines()) == 6


def test_a_run_that_only_crashes_is_left(cloud):
    code, said, _, folder = cloud("watch", ends=[139, 0] * 9)
    assert code == 139 and "crashed 3 times, with exit code 139" in said
    assert (folder / "logs/llm/worker-0.log").exists()


def test_bad_input_is_not_run_again(cloud):
    """Though the other worker says that it lost this one."""
    code, said, _, _ = cloud("watch", ends=[2, 76])
    assert code == 2 and "ended with exit code 2" in said


def test_a_disk_that_cannot_be_mounted(cloud):
    """Nothing is run that would write beside it."""
    code, said, _, folder = cloud("watch", more="MOUNT=false\n")
    assert code == 2 and "could not begin on llm in 4 tries" in said
    assert not (folder / "commands").exists()
    code, said, _, folder = cloud("watch", more="MOUNT=touch mounted\n")
    assert code == 0 and (folder / "workers/1/mounted").exists()


def test_code_that_cannot_be_copied(cloud):
    code, said, _, folder = cloud("watch", scp=[1] * 40)
    assert code == 2 and "could not begin on llm in 4 tries" in said
    assert not (folder / "commands").exists()


def test_a_gcloud_that_says_nothing(cloud):
    code, said, _, _ = cloud("watch", wrong=["login expired"] * 40)
    assert code == 2 and "did not say how llm is in 4 looks" in said


def test_logs_of_no_vm(cloud):
    code, said, _, _ = cloud("logs")
    assert code == 2 and said.strip().endswith("want one that is there: status")


def test_a_run_that_goes_on_is_not_started_twice(cloud):
    assert cloud("create")[0] == cloud("setup")[0] == 0
    cloud("run", ends=["long", "long"])
    code, said, _, folder = cloud("run", ends=["long", "long"])
    assert code == 0 and said.count("already running") == 2
    time.sleep(0.5)
    assert len((folder / "commands").read_text().splitlines()) == 2
    cloud("delete")


@pytest.mark.parametrize(
    "verb", ["create", "setup", "run", "watch", "logs", "status", "delete"]
)
def test_dry_runs_print_commands_and_run_none(cloud, verb):
    bare = "/usr/bin:/bin"  # without the fake
    code, said, calls, _ = cloud(verb, "--dry-run", path=bare)
    assert code == 0 and not calls
    commands = [line for line in said.splitlines() if line.startswith("gcloud ")]
    assert commands and all("--zone=us-west4-a" in line for line in commands)


def test_what_runs_and_what_it_costs(cloud):
    code, said, _, _ = cloud("status")
    assert code == 0
    # Eight chips at 1.20; four at 3.22, taken away; sixteen of two cores at 2.00.
    for price in ("$9.60", "$12.88", "$32.00"):
        assert price in said
    assert said.strip().splitlines()[-1].startswith("tpu: us-west4-a: $41.60 an hour")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("COLOUR=red\n", "got 'COLOUR=red' in line 10"),
        ("hello\n", "got 'hello' in line 10"),
        ("NAME=\n", "got no NAME"),
        ("NAME=My TPU\n", "small letters"),
        ("TYPE=h100\n", "got TYPE=h100; want v2-8"),
        ("SPOT=1\n", "got SPOT=1; want yes or no"),
    ],
)
def test_bad_settings(cloud, more, words):
    code, said, calls, _ = cloud("watch", more=more)
    assert code == 2 and words in said and len(said.splitlines()) == 1 and not calls


def test_bad_words(cloud):
    for words in (("fly",), ()):
        code, said, calls, _ = cloud(*words)
        assert code == 2 and len(said.splitlines()) == 1 and not calls
