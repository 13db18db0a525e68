"""What a config trains, put together once: nothing is allocated, nothing compiled.

Training, its checks, plans and the compilation for pods all begin here, so that what is
planned is what is trained.

    network = models.build(c.model, c.objective, policy, vocab_size, tokenizer)
    assembly = assemble(c, network, policy, mesh, steps=1000)
    step = assembly.jit_step(knobs, options)
    step.trace(assembly.state, assembly.batch, frozen)
"""

import dataclasses
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from llm import adapters, objectives
from llm.adapters import Adapter
from llm.checkpoint import State
from llm.models import Network
from llm.nn.contract import with_head
from llm.precision import Policy
from llm.training import init_state, optim, train_step
from llm.training.train_step import Knobs


@dataclasses.dataclass(frozen=True)
class Assembly:
    """A training, abstract.

    Attributes:
      parts: which parameters are trained, and which stay.
      factor: the schedule, from a step to a factor of the learning rate.
      state: shapes, dtypes and shardings of the training state.
      shapes: of the features of a row.
    """

    c: ConfigDict
    network: Network
    policy: Policy
    mesh: Mesh
    adapter: Adapter
    parts: init_state.Parts
    factor: optax.Schedule
    tx: optax.GradientTransformationExtraArgs
    state: State
    shapes: dict[str, jax.ShapeDtypeStruct]

    @property
    def saved(self) -> State:
        """What a checkpoint holds: the state, and answers still to be learned from."""
        online = self.network.objective.online
        batches = self.c.rollouts.batches if online else 1
        if not online or batches * online.epochs == 1:
            return self.state
        shapes = {
            name: jax.ShapeDtypeStruct((batches, *x.shape), x.dtype)
            for name, x in self.shapes.items()
        }
        size = self.c.train.batch_size
        kept = train_step.abstract_batch(shapes, size, self.mesh)
        return self.state._replace(rollouts=kept)

    @property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of the mesh, abstract."""
        size = self.c.train.batch_size
        return train_step.abstract_batch(self.shapes, size, self.mesh)

    def jit_step(self, knobs: Knobs, options: dict[str, str]) -> Any:
        """The update, to be traced or called with (state, batch, frozen, bounds)."""
        model, objective, _ = self.network
        step = train_step.build_step(
            with_head(model), objective, self.tx, knobs, self.policy, self.adapter.join
        )
        return train_step.jit_step(step, self.state, options)

    def jit_validate(self) -> Any:
        """What a validation measures of (params, batch, frozen)."""
        model, objective, _ = self.network
        validate = train_step.build_validate(
            with_head(model), objective, self.policy, self.adapter.join
        )
        return jax.jit(validate)

    def abstract_frozen(self) -> tuple[train_step.Frozen, ...]:
        """What stays, as the third argument of a trace; () where nothing does."""
        reference = self.parts.whole if self.network.objective.reference else None
        if self.parts.own == () and reference is None:
            return ()
        return (train_step.Frozen(self.parts.own, reference),)


def assemble(
    c: ConfigDict, network: Network, policy: Policy, mesh: Mesh, *, steps: int
) -> Assembly:
    """The training of a config.

    Args:
      steps: the length of the run, which the schedule knows.
    """
    adapter = adapters.build(c.adapter)
    parts = init_state.parts(network.init, adapter, mesh, c.rules)
    factor = optim.schedule(steps=steps, **c.schedule)
    tx = optim.configured(c.optimizer, factor, parts.axes, model=c.model, policy=policy)
    ema = c.train.ema > 0
    state = train_step.abstract_state(parts.trained, tx, mesh, c.rules, ema=ema)
    shapes = objectives.row_shapes(network.objective, c.train.seq_len)
    return Assembly(c, network, policy, mesh, adapter, parts, factor, tx, state, shapes)
