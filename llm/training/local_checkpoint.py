"""Checkpoints on each machine's own disk: often and near, and gone with the machine.

Many hosts that write to one far disk take minutes, and what came after the last time is
lost with a crash. Here each process writes the parts that its own devices hold to a
folder of its machine, every few steps. A restart on the same machines with the same
layout goes on there; where any of them has lost its folder, or holds another step, all
take the newest checkpoint that they share. The idea is that of Gemini (Wang et al.
2023, SOSP) and of orbax's emergency checkpoints, without copies on other machines.

    local = LocalCheckpoints(folder, workdir)
    found = local.restore(abstract, after=shared_step)     # None: take the shared one
    local.save(state, loop)

`FOLDER/ID/process-N/STEP/` holds `arrays.safetensors` and `loop.json`. The ID is made
once for a run directory and lies in it, so that another run never finds them.
"""

import contextlib
import functools
import json
import pathlib
import shutil
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from llm import distributed, files, tree
from llm.checkpoint import LoopState, State
from llm.errors import InputError
from llm.interop import safetensors

_ID = "local_checkpoints.txt"
_ARRAYS, _LOOP = "arrays.safetensors", "loop.json"
_KEPT = 2  # so that all processes have one in common, wherever they were stopped


class LocalCheckpoints:
    """Those of this process; writes in the background.

    Args:
      folder: on a disk of this machine.
      workdir: the run directory, which all processes share.
      say: where to tell of a disk that takes no more; the training goes on without.
    """

    def __init__(self, folder: str, workdir: str, say: Callable[[str], None] = print):
        path = epath.Path(workdir) / _ID
        with distributed.first_goes_first("local checkpoints"):
            if not path.exists():
                files.write_text(path, f"{uuid.uuid4().hex}\n")
        own = f"process-{jax.process_index()}-of-{jax.process_count()}"
        self._run = pathlib.Path(folder).expanduser() / path.read_text("utf-8").strip()
        self._root, self._say = self._run / own, say
        self._thread = threading.Thread(target=lambda: None)
        self._full = False

    def save(self, state: State, loop: LoopState) -> None:
        """Copies what this process holds, and starts to write it."""
        self.wait()
        if self._full:
            return
        held = {name: part for name, part, _ in _parts(state)}
        copies = {name: np.array(part.data) for name, part in held.items()}
        places = {name: place for name, _, place in _parts(state)}
        # As text, now: the loop continues and adds to its lists.
        record = json.dumps(
            {"step": int(state.step), "loop": loop.record(), "places": places}
        )
        self._thread = threading.Thread(target=self._write, args=(copies, record))
        self._thread.start()

    def _write(self, copies: dict[str, np.ndarray], record: str) -> None:
        sums = {name: zlib.crc32(x.tobytes()) for name, x in copies.items()}
        step = json.loads(record)["step"]
        made = [
            safetensors.Made(name, x.shape, x.dtype, functools.partial(_same, x))
            for name, x in copies.items()
        ]
        try:
            with files.folder(self._root / str(step)) as partial:
                safetensors.write_file(pathlib.Path(partial) / _ARRAYS, made)
                text = json.dumps({"sums": sums, **json.loads(record)})
                (partial / _LOOP).write_text(text, encoding="utf-8")
        except InputError as error:
            self._full = True
            self._say(f"no more checkpoints on this machine: {error}")
            return
        for old in self.steps()[:-_KEPT]:
            shutil.rmtree(self._root / str(old))

    def steps(self) -> list[int]:
        """Those that lie there, the newest last."""
        names = (path.name for path in self._root.glob("[0-9]*"))
        return sorted(int(name) for name in names if name.isdigit())

    def restore(self, abstract: State, *, after: int) -> tuple[State, LoopState] | None:
        """The newest that all processes have, or None; all must call it.

        Args:
          abstract: shapes, dtypes and shardings, which must be those that wrote.
          after: the step of the newest shared checkpoint, -1 where there is none.
        """
        step = int(min(distributed.gathered(float(max(self.steps(), default=-1)))))
        found = self._read(step, abstract) if step > after else None
        if not min(distributed.gathered(float(found is not None))):
            return None
        loop, read = found
        named = {
            name: jax.make_array_from_callback(
                leaf.shape, leaf.sharding, functools.partial(_part_at, read, name, leaf)
            )
            for name, leaf in tree.named_leaves(abstract._replace(step=())).items()
        }
        whole = jax.tree.structure(abstract._replace(step=()))
        state = jax.tree.unflatten(whole, list(named.values()))
        at = jax.device_put(jnp.int32(step), abstract.step.sharding)
        return state._replace(step=at), loop

    def _read(self, step: int, abstract: State):
        """(loop, {name: part}) of a step, whole and of this layout, or None."""
        folder = self._root / str(step)
        try:
            record = json.loads((folder / _LOOP).read_text("utf-8"))
            stored = safetensors.open_file(folder / _ARRAYS)
            read = {name: np.array(held.read()) for name, held in stored.items()}
            wanted = {name: place for name, _, place in _parts(abstract)}
            sums = {name: zlib.crc32(x.tobytes()) for name, x in read.items()}
            whole = record["sums"] == sums and record["step"] == step
            if not whole or record["places"] != wanted:
                return None
        except (OSError, ValueError, LookupError, TypeError):
            return None
        try:
            loop = LoopState.of(record["loop"])
        except TypeError:
            return None
        return loop, read

    def wait(self) -> None:
        """Returns when what was begun is written."""
        if self._thread.ident is not None:
            self._thread.join()

    def remove(self) -> None:
        """Takes away what no restart needs: the run is over."""
        self.wait()
        shutil.rmtree(self._root, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: another process's lies there
            self._run.rmdir()


def _same(x):
    return x


def _parts(state: State) -> Iterator[tuple[str, Any, Any]]:
    """(name, part, place) of what this process holds of each array, each part once.

    Of abstract arrays, the part is None. A place is the shape and dtype of the array,
    and where in it the part lies.
    """
    for name, leaf in tree.named_leaves(state._replace(step=())).items():
        held = {
            _bounds(shard.index, leaf.shape): shard
            for shard in getattr(leaf, "addressable_shards", ())
        }
        indices = leaf.sharding.addressable_devices_indices_map(leaf.shape).values()
        for bounds in sorted({_bounds(index, leaf.shape) for index in indices}):
            place = [list(leaf.shape), str(leaf.dtype), [list(b) for b in bounds]]
            yield _name(name, bounds), held.get(bounds), place


def _part_at(read, name, leaf, index) -> np.ndarray:
    return read[_name(name, _bounds(index, leaf.shape))]


def _name(name: str, bounds) -> str:
    return name + "@" + ",".join(f"{start}:{stop}" for start, stop in bounds)


def _bounds(index, shape) -> tuple[tuple[int, int], ...]:
    return tuple(s.indices(size)[:2] for s, size in zip(index, shape, strict=True))
