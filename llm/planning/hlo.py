"""What a TPU's compiler says that a program costs, read off its optimised text.

The TPU compiler writes an estimate of cycles on each instruction of a program that it
has laid out, but no sum: a loop's body stands there once. `read` multiplies by trip
counts and adds up; it also lists what is sent between chips, and the Pallas kernels,
whose cycles the compiler does not know and which are counted by their shapes.

    program = read(compiled.as_text())
    program.cycles, program.products, program.collectives, program.kernels

A trip count is the loop's `known_trip_count`, else what its condition compares with. A
conditional costs as its dearer branch. A collective that is spread over several fusions
(a chain) is one.
"""

import collections
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llm.errors import InputError

_BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "f8e4m3fn": 8, "f8e5m2": 8,
    "bf16": 16, "f16": 16, "s16": 16, "u16": 16, "s32": 32, "u32": 32, "f32": 32,
    "s64": 64, "u64": 64, "f64": 64,
}  # fmt: skip
COLLECTIVES = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute",
    "ragged-all-to-all",
)  # fmt: skip
_UNKNOWN = 2**62  # a number of cycles that stands for none
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\]")


class Collective(NamedTuple):
    """Payload that a device sends or receives by one kind of collective in a step.

    Attributes:
      kind: a name of `COLLECTIVES`.
      devices: those of one of its groups, by their places in the mesh; () is all.
      bytes: of the larger side of a payload, a device.
    """

    kind: str
    devices: tuple[int, ...]
    bytes: float
    count: float


class Kernel(NamedTuple):
    """A Pallas kernel, by its shapes; those of all its calls of a step are added.

    Attributes:
      flops: of attention, for the half of the square that a causal query sees; of what
        is unknown, 0.
      bytes: of operands and results, once each.
    """

    name: str
    flops: float
    bytes: float
    count: float

    @property
    def attention(self) -> bool:
        """Whether it is one of splash attention's."""
        return self.name.startswith("splash_")


class Program(NamedTuple):
    """Costs of one step on one device.

    Attributes:
      cycles: by the compiler's estimates, without Pallas kernels.
      products: of these, in fusions around a matrix product.
    """

    cycles: float
    products: float
    collectives: list[Collective]
    kernels: list[Kernel]


class _Instruction(NamedTuple):
    name: str
    shape: str
    op: str
    operands: list[str]
    text: str  # the whole of it
    is_root: bool


def read(text: str) -> Program:
    """Adds a compiled program up.

    Raises:
      InputError: no entry computation is found: this is not optimised HLO.
    """
    computations, entry = _parse(text)
    if entry is None:
        raise InputError(got="text without ENTRY", want="optimised HLO text")
    found = _Sums()
    _add(computations, entry, 1, found)
    collectives = [
        Collective(kind, devices, size, count)
        for (kind, devices), (size, count) in sorted(found.collectives.items())
    ]
    kernels = [Kernel(name, *sums) for name, sums in sorted(found.kernels.items())]
    return Program(found.cycles, found.products, collectives, kernels)


def kernel_cycles(kernels: list[Kernel], peak_flops, bandwidth, clock) -> float:
    """Cycles of kernels, each as long as its FLOPs or its bytes take, the longer."""
    seconds = sum(max(k.flops / peak_flops, k.bytes / bandwidth) for k in kernels)
    return seconds * clock


class _Sums:
    def __init__(self):
        self.cycles = self.products = 0.0
        self.collectives = collections.defaultdict(lambda: [0.0, 0.0])
        self.kernels = collections.defaultdict(lambda: [0.0, 0.0, 0.0])
        self.chains = set()


def shape_bytes(text: str) -> float:
    """Bytes of all arrays that a type names, tuples and all."""
    return sum(
        math.prod(map(int, filter(None, sizes.split(",")))) * _BITS[dtype] / 8
        for dtype, sizes in _ARRAY.findall(text)
        if dtype in _BITS
    )


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str | None]:
    """{computation: its instructions}, and which is the entry."""
    made, entry, current, lines = {}, None, None, []
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if head and current is None:
            current, lines = head[2], []
            entry = current if head[1] else entry
        elif line.rstrip() == "}" and current is not None:
            made[current] = [_instruction(x) for x in lines]
            current = None
        elif current is not None and re.match(r"\s+(ROOT )?%?[\w.\-]+ = ", line):
            lines.append(line)
        elif current is not None and lines:
            lines[-1] += line  # an attribute may hold raw newlines
    return made, entry


def _instruction(line: str) -> _Instruction:
    left, _, right = line.partition(" = ")
    shape, rest = _type_and_rest(right)
    op, _, inside = rest.partition("(")
    operands = re.findall(r"%([\w.\-]+)", inside[: _closing(inside)])
    name = left.replace("ROOT", "").strip().lstrip("%")
    return _Instruction(name, shape, op, operands, right, "ROOT" in left)


def _type_and_rest(text: str) -> tuple[str, str]:
    """Splits `f32[2]{0:T(128)} add(...)` or `(f32[], ...) while(...)`."""
    if text.startswith("("):
        end = _closing(text[1:]) + 2
        return text[:end], text[end:].lstrip()
    shape, _, rest = text.partition(" ")
    return shape, rest


def _closing(text: str) -> int:
    """Where the bracket closes that was opened before the text."""
    depth = 1
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return at
    return len(text)


def _add(computations, name: str, times: float, found: _Sums) -> None:
    for x in computations.get(name, ()):
        if x.op == "while":
            body = re.search(r"body=%?([\w.\-]+)", x.text)[1]
            _add(computations, body, times * _trips(computations, x), found)
            continue
        if x.op == "conditional":
            _add(computations, _dearest(computations, x), times, found)
        elif x.op in ("call", "async-start"):
            for called in re.findall(r"(?:to_apply|calls)=%?([\w.\-]+)", x.text):
                _add(computations, called, times, found)
        elif x.op == "fusion":
            called = re.search(r"calls=%?([\w.\-]+)", x.text)
            _add_sent(computations, called[1] if called else "", times, found)
        cycles = re.search(r'"estimated_cycles":"(\d+)"', x.text)
        if cycles and int(cycles[1]) < _UNKNOWN:
            found.cycles += times * int(cycles[1])
            if re.search(r"kind=kOutput|convolution\(|dot\(", x.text):
                found.products += times * int(cycles[1])
        _add_collective(x, times, found)
        if x.op == "custom-call" and 'target="tpu_custom_call"' in x.text:
            _add_kernel(x, times, found)


def _add_sent(computations, name: str, times: float, found: _Sums) -> None:
    """The collectives inside a fusion, whose cycles stand on the fusion itself."""
    sends_parts = any("AsyncCollective" in x.text for x in computations.get(name, ()))
    scatters = name.startswith("all-reduce-scatter")
    for x in computations.get(name, ()):
        inner = re.search(r"calls=%?([\w.\-]+)", x.text)
        if x.op == "fusion" and inner:
            _add_sent(computations, inner[1], times, found)
        _add_collective(x, times, found, sends_parts, scatters)


def _add_collective(x, times, found, sends_parts=False, scatters=False) -> None:
    kind = x.op.removesuffix("-start")
    if kind not in COLLECTIVES:
        return
    channel = re.search(r"channel_id=(\d+)", x.text)
    chain = re.search(r'chain_id="(\d+)"', x.text)
    if channel and chain:  # layers that are unrolled share their channels
        if (channel[1], chain[1]) in found.chains:
            return
        found.chains.add((channel[1], chain[1]))
    size = shape_bytes(x.shape)
    if x.op == "all-gather-start":  # its type holds the operand, too
        size = shape_bytes(x.shape.split("),")[-1]) if ")," in x.shape else size / 2
    if scatters and kind == "all-reduce":
        kind = "reduce-scatter"
    sums = found.collectives[kind, _devices(x.text)]
    sums[0] += times * size
    sums[1] += times


def _devices(text: str) -> tuple[int, ...]:
    """Those of the first of its groups, of any form in which groups are written."""
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text)
    if mesh:
        names, sizes = zip(*re.findall(r"'(\w+)'=(\d+)", mesh[1]), strict=True)
        along = [names.index(axis) for axis in re.findall(r"'(\w+)'", mesh[2])]
        order = [n for n in range(len(names)) if n not in along] + along
        each = math.prod(int(sizes[n]) for n in along)
        return _first([int(size) for size in sizes], order, each)
    iota = re.search(
        r"replica_groups=\[\d+,(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text
    )
    if iota:
        sizes = [int(size) for size in iota[2].split(",")]
        order = [int(n) for n in iota[3].split(",")] if iota[3] else range(len(sizes))
        return _first(sizes, order, int(iota[1]))
    lists = re.search(r"replica_groups=\{\{([\d,]*)\}", text)
    if lists:
        return tuple(map(int, lists[1].split(",")))
    pairs = re.search(r"source_target_pairs=\{(\{.*?\})\}", text)
    return _chain(re.findall(r"\{(\d+),(\d+)\}", pairs[1])) if pairs else ()


def _first(sizes: list[int], order: Sequence[int], each: int) -> tuple[int, ...]:
    """The first `each` devices of an array of `sizes`, its axes in this order."""
    devices = np.arange(math.prod(sizes)).reshape(sizes).transpose(order)
    return tuple(devices.reshape(-1)[:each].tolist())


def _chain(pairs: list[tuple[str, str]]) -> tuple[int, ...]:
    """The devices that the first sender hands on to, one after the other."""
    follows = {int(a): int(b) for a, b in pairs}
    found = [int(pairs[0][0])]
    while follows.get(found[-1], found[0]) not in found:
        found.append(follows[found[-1]])
    return tuple(found)


def _add_kernel(x: _Instruction, times: float, found: _Sums) -> None:
    name = re.sub(r"[.\d]+$", "", x.name)
    given = re.search(r"operand_layout_constraints=\{(.*?\})\}", x.text)
    arrays = _shapes(given[1] if given else "")
    moved = sum(map(_size, arrays)) + shape_bytes(x.shape)
    sums = found.kernels[name]
    sums[0] += times * (_declared(x.text) or _attention_flops(name, arrays))
    sums[1] += times * moved
    sums[2] += times


def _declared(text: str) -> int:
    """FLOPs that the kernel's author says it has; 0 where nothing is said."""
    said = re.search(r'cost_estimate\\?":\s*\{\\?"flops\\?":\s*\\?"?(\d+)', text)
    return int(said[1]) if said else 0


def _attention_flops(name: str, arrays) -> float:
    """Of splash attention's kernels: two products forward, five backward, causal."""
    rows = [
        dims for dtype, dims in arrays if dtype in ("bf16", "f32") and len(dims) == 4
    ]
    if not name.startswith("splash_") or len(rows) < 2:
        return 0.0
    (B, N, T, H), S = rows[0], rows[1][2]
    products = 5 if "dkv" in name else 3 if "dq" in name else 2
    return products * 2 * B * N * T * S * H / 2


def _shapes(text: str) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (dtype, tuple(map(int, filter(None, dims.split(",")))))
        for dtype, dims in _ARRAY.findall(text)
        if dtype in _BITS
    ]


def _size(array: tuple[str, tuple[int, ...]]) -> float:
    return math.prod(array[1]) * _BITS[array[0]] / 8


def _dearest(computations, x: _Instruction) -> str:
    """The branch of a conditional with the most cycles."""
    names = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", x.text)
    listed = re.search(r"branch_computations=\{([^}]*)\}", x.text)
    names += re.findall(r"[\w.\-]+", listed[1]) if listed else []

    def cycles(name):
        sums = _Sums()
        _add(computations, name, 1, sums)
        return sums.cycles

    return max(names, key=cycles)


def _trips(computations, x: _Instruction) -> int:
    """How often a loop goes round; 1 where its text does not say."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', x.text)
    if known:
        return int(known[1])
    condition = computations[re.search(r"condition=%?([\w.\-]+)", x.text)[1]]
    body = computations[re.search(r"body=%?([\w.\-]+)", x.text)[1]]
    root = next(i for i in condition if i.is_root)
    if root.op != "compare" or "direction=LT" not in root.text:
        return 1
    counter, bound = root.operands
    last, index = _constant(condition, bound), _tuple_index(condition, counter)
    return max(1, -(-(last or 1) // _stride(body, index)))


def _constant(instructions, name: str) -> int | None:
    for x in instructions:
        if x.name == name and (value := re.search(r"constant\((-?\d+)\)", x.text)):
            return int(value[1])
    return None


def _tuple_index(instructions, name: str) -> int | None:
    for x in instructions:
        if x.name == name and (index := re.search(r"index=(\d+)", x.text)):
            return int(index[1])
    return None


def _stride(body, index: int | None) -> int:
    """What a round adds to the counter at this place of the carried tuple."""
    root = next(x for x in body if x.is_root)
    if index is None or root.op != "tuple" or index >= len(root.operands):
        return 1
    step = next((x for x in body if x.name == root.operands[index]), None)
    if step is None or step.op != "add":
        return 1
    values = [_constant(body, name) for name in step.operands]
    return next((v for v in values if v), 1)
