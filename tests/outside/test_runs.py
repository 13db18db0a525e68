"""Where runs are started: Slurm's environments, meshes, folders of others."""

import pytest

from llm import config, distributed, files
from llm.errors import InputError
from llm.workloads import train

# Task 1 on node 0, as srun tells it.
STEP = {"SLURM_STEP_NODELIST": "a[0-1]", "SLURM_STEP_NUM_TASKS": "16",
        "SLURM_PROCID": "1", "SLURM_NODEID": "0", "SLURM_LOCALID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "8(x2)"}  # fmt: skip
ONE = {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0"}


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        (ONE | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, list(range(8))),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, [1]),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"},
         [2, 3]),
        ({"SLURM_STEP_TASKS_PER_NODE": "4,2", "SLURM_NODEID": "1",
          "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [2, 3]),
        ({"CUDA_VISIBLE_DEVICES": "5"}, [0]),  # bound: each task sees its own
        ({"SLURM_GPUS_PER_TASK": "8", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
          "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [0, 1, 2, 3]),
        # Two tasks of a node of four GPUs, each bound to two.
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_GPUS_ON_NODE": "4",
          "CUDA_VISIBLE_DEVICES": "0,1"}, [0, 1]),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "CUDA_VISIBLE_DEVICES": "0,1",
          "SLURM_TRES_PER_TASK": "cpu=8,gres/gpu=2"}, [0, 1]),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_GPUS_ON_NODE": "4",
          "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [2, 3]),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5"},
         [1]),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_gpus_of_a_task(environment, devices):
    assert distributed.slurm_devices(STEP | environment) == devices


@pytest.mark.parametrize(
    ("environment", "joins"),
    [
        (STEP, True),
        # A line of a script of sbatch, without srun: it would wait for nobody.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_JOB_ID": "7"}, False),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({}, False),
    ],
)
def test_who_joins_others(environment, joins):
    assert distributed._in_slurm_step(environment) == joins


def test_a_second_training_is_refused_at_once(tmp_path):
    c = config.debug(config.base())
    with (
        files.lock(tmp_path, "trains", name=".train.lock"),
        pytest.raises(InputError, match="in which another process trains"),
    ):
        train.run(c, str(tmp_path))


def test_a_mesh_that_cuts_no_head_is_refused(devices):
    c = config.debug(config.base())
    c.model.update(heads=4, kv_heads=4)
    c.mesh = (("data", 1), ("tensor", 8))
    with pytest.raises(InputError, match="4 heads on 8 devices of the mesh axis"):
        train.check(c)
