"""Floating-point operations of a model, and the most that a device can do.

Model FLOPs count the products that the mathematics needs, two operations each
multiply-add, and nothing else: not what rematerialisation repeats, nor the norms.
A token that goes through P weights costs 2 P forward and 4 P backward (the gradients
of the input and of the weights), so 6 P in training (Kaplan et al. 2020, 2001.08361).
Attention adds the products with keys and values, 4 N H a (query, key) pair and layer
forward (Chowdhery et al. 2022, 2204.02311, appendix B).

A causal query sees (S + 1) / 2 keys on average, half of the full square, and that is
what we count by default. Many published MFU figures count the full square, which
flatters a 7B model at 8k tokens by 14 %; `full=True` is that count. A packed row is
counted as one text, whatever it holds.

    per_row = TRAINING * row_flops(model.cfg, params, "causal", length=512)
    mfu = rows_per_s * per_row / peak_flops(mesh.devices.flat)

The table of chips says what `find_chip(device.device_kind)` can do. Peaks are dense
products, without sparsity, which vendors' headline figures double. Memory is what the
driver reports. Prices are a planner's defaults: dollars per chip-hour on demand, as
commonly listed in the United States; yours differ, so look yours up and pass it.

Legend: S sequence length, N heads, H head dim, L layers, W window.
"""

import functools
import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llm.tree import named_leaves

TRAINING = 3.0  # forward passes that cost as much as forward and backward


def matmul_params(params: Any, *, top_k: int = 0) -> int:
    """Weights that take part in a product with every token's activations.

    They are the leaves named `kernel`, and the table of the leaf `embed/embedding`
    where the head is tied, that is where nothing is named `head` or `unembed`: a
    look-up is no product. Kernels that stand beside a `router` are those of experts.

    Args:
      params: a pytree of arrays or of shapes (`jax.eval_shape`).
      top_k: experts that a token goes through; the others take no part.
    """
    return sum(_products(params, top_k).values())


def _products(params: Any, top_k: int = 0) -> dict[str, int]:
    """{leaf name: weights of it in a token's products}."""
    leaves = named_leaves(params)
    tied = not any({"head", "unembed"} & set(name.split("/")) for name in leaves)
    found = {}
    for name, leaf in leaves.items():
        size = math.prod(leaf.shape)
        if name.split("/")[-1] == "kernel":
            router = f"{name.rsplit('/', 2)[0]}/router/kernel"
            if router in leaves and router != name:
                size = size * top_k // leaves[router].shape[-1]
            found[name] = size
        elif tied and name.split("/")[-2:] == ["embed", "embedding"]:
            found[name] = size
    return found


def attended_keys(seq_len: int, *, window: int = 0, causal: bool = True) -> float:
    """Keys that a query sees on average; a window of W holds the query itself."""
    S, W = seq_len, min(window, seq_len) if window else seq_len
    if not causal:
        return float(W)
    # The first W queries see 1, 2, ... W keys, the others W.
    return (W * (W + 1) / 2 + (S - W) * W) / S


class Sides(NamedTuple):
    """Weights in the products of an encoder-decoder, by whose tokens they meet."""

    source: int
    target: int


def sides(params: Any) -> Sides:
    """Splits the weights of an encoder-decoder.

    Source tokens go through the encoder and become the keys and values that the decoder
    reads; target tokens go through all else.
    """
    found = Sides(0, 0)
    for name, size in _products(params).items():
        parts = name.split("/")
        reads = "cross" in parts and {"key", "value"} & set(parts)
        if parts[0] == "encoder" or reads:
            found = found._replace(source=found.source + size)
        else:
            found = found._replace(target=found.target + size)
    return found


def row_flops(
    cfg: Any,
    params: Any,
    kind: str,
    *,
    length: int,
    source_length: int = 0,
    full: bool = False,
) -> float:
    """FLOPs of a forward pass over a row that is one text.

    Args:
      cfg: of the model (`llm/nn/model.py`); without heads nothing is attended to.
      kind: 'causal', 'masked' or 'encdec'.
      length: tokens of the row; of an encoder-decoder, of the target.
      source_length: tokens that an encoder reads.
      full: counts the full square of a causal model, as many published figures do.
    """
    pair = 4.0 * cfg.heads * cfg.head_dim
    if kind == "encdec":
        weights = sides(params)
        own = attended_keys(length, causal=not full)
        pairs = cfg.layers * source_length**2
        pairs += cfg.decoder_depth * length * (own + source_length)
        products = weights.source * source_length + weights.target * length
        return 2.0 * products + pair * pairs
    windows = cfg.windows or (0,)
    causal = kind == "causal" and not full
    keys = sum(
        attended_keys(length, window=windows[i % len(windows)], causal=causal)
        for i in range(cfg.layers)
    )
    weights = matmul_params(params, top_k=cfg.top_k)
    return length * (2.0 * weights + pair * keys)


def flops_of_rows(
    cfg: Any, params: Any, kind: str, shapes: Mapping[str, Any], *, full: bool = False
) -> float:
    """`row_flops` of a row of the features whose shapes these are."""
    length, source = shapes["tokens"].shape[0], source_length(kind, shapes)
    return row_flops(cfg, params, kind, length=length, source_length=source, full=full)


def source_length(kind: str, shapes: Mapping[str, Any]) -> int:
    """Tokens of a row that an encoder reads; 0 where there is none."""
    return shapes["source_tokens"].shape[0] if kind == "encdec" else 0


def next_token_flops(
    cfg: Any, params: Any, kind: str, *, context: int, source_length: int = 0
) -> float | None:
    """FLOPs of generating one token that sees `context` tokens, itself included.

    Of an encoder-decoder, when its source has been read; None of one that only encodes.
    """
    if kind == "masked":
        return None
    pair = 4.0 * cfg.heads * cfg.head_dim
    if kind == "encdec":
        seen = cfg.decoder_depth * (context + source_length)
        return 2.0 * sides(params).target + pair * seen
    windows = cfg.windows or (0,)
    seen = sum(
        min(context, windows[i % len(windows)] or context) for i in range(cfg.layers)
    )
    weights = matmul_params(params, top_k=cfg.top_k)
    return 2.0 * weights + pair * seen


def peak_flops(devices: Sequence[jax.Device]) -> float | None:
    """Peak bfloat16 FLOP/s of all devices together; None where a kind is not known.

    The CPU devices of a process share its cores, so they count as one, measured.
    """
    total = 0.0
    hosts = set()
    for device in devices:
        if device.platform == "cpu":
            if device.process_index not in hosts:
                hosts.add(device.process_index)
                total += measured_cpu_peak(_local_cpu(devices))
            continue
        chip = find_chip(device.device_kind)
        if chip is None:
            return None
        total += chip.peak_flops / chip.devices
    return total


def _local_cpu(devices: Sequence[jax.Device]) -> jax.Device:
    # Other hosts' processors are taken to be like ours.
    return next(d for d in devices if d.process_index == d.client.process_index())


@functools.cache
def measured_cpu_peak(device: jax.Device) -> float:
    """FLOP/s of the best matrix product on a CPU device, measured in under 1.5 s.

    The larger of float32 and of bfloat16 with float32 results, whichever the processor
    does faster: an MFU against it says how much of the machine is used.
    """
    # 1024 fits the second-level caches and is large enough to keep every core busy.
    D = 1024
    best = 0.0
    for dtype in (jnp.float32, jnp.bfloat16):
        x_DD = jax.device_put(jnp.ones((D, D), dtype), device)
        product = jax.jit(
            functools.partial(jnp.dot, preferred_element_type=jnp.float32)
        )
        product(x_DD, x_DD).block_until_ready()
        deadline = time.perf_counter() + 0.4
        while (start := time.perf_counter()) < deadline:
            product(x_DD, x_DD).block_until_ready()
            best = max(best, 2 * D**3 / (time.perf_counter() - start))
    return best


_GiB = 1024**3
_CLOUD_TPU = "cloud.google.com/tpu/docs"


class Chip(NamedTuple):
    """What one chip can do; `kinds` is a pattern for the names jax gives it."""

    kinds: str
    peak_flops: float  # dense bfloat16 FLOP/s
    hbm_bytes: float
    hbm_bandwidth: float  # bytes/s
    price: float | None  # dollars per chip-hour on demand; None where we know none
    source: str  # of peak, memory and bandwidth; then whose price
    # jax shows each TensorCore of a TPU v2, v3 and 7x as a device of its own.
    devices: int = 1
    # Of a TPU's matrix units, Hz: the peak over what they do in a cycle.
    clock: float = 0.0
    # Bytes/s of all links to other chips of its slice together, both ways
    # (jax-ml.github.io/scaling-book, "How to think about TPUs").
    ici_bandwidth: float = 0.0


CHIPS = {
    "v2": Chip(
        r"tpu v2", 45e12, 16 * _GiB, 700e9, 1.125,
        f"{_CLOUD_TPU}/v2; Google Cloud, v2-8", devices=2,
    ),
    "v3": Chip(
        r"tpu v3", 123e12, 32 * _GiB, 900e9, 2.0,
        f"{_CLOUD_TPU}/v3; Google Cloud, v3-8", devices=2,
    ),
    "v4": Chip(
        r"tpu v4", 275e12, 32 * _GiB, 1228e9, 3.22,
        f"{_CLOUD_TPU}/v4; Google Cloud", clock=1.05e9, ici_bandwidth=270e9,
    ),
    "v5e": Chip(
        r"tpu v5( lite|e)", 197e12, 16 * _GiB, 819e9, 1.20,
        f"{_CLOUD_TPU}/v5e; Google Cloud", clock=1.5e9, ici_bandwidth=180e9,
    ),
    "v5p": Chip(
        r"tpu v5p?", 459e12, 95 * _GiB, 2765e9, 4.20,
        f"{_CLOUD_TPU}/v5p; Google Cloud", clock=1.75e9, ici_bandwidth=540e9,
    ),
    "v6e": Chip(
        r"tpu v6( lite|e)", 918e12, 32 * _GiB, 1640e9, 2.70,
        f"{_CLOUD_TPU}/v6e; Google Cloud", clock=1.75e9, ici_bandwidth=360e9,
    ),
    "tpu7x": Chip(
        r"tpu ?v?7x", 2307e12, 192 * _GiB, 7380e9, None,
        f"{_CLOUD_TPU}/tpu7x", devices=2, clock=2.2e9,
        ici_bandwidth=540e9,
    ),
    "a100-40gb": Chip(
        r"nvidia a100-(sxm4|pcie)-40gb", 312e12, 40 * _GiB, 1555e9, 1.29,
        "NVIDIA A100 datasheet; Lambda",
    ),
    "a100-80gb": Chip(
        r"nvidia a100(-sxm4|-pcie)?[- ]80gb( pcie)?", 312e12, 80 * _GiB, 1935e9, 1.79,
        "NVIDIA A100 datasheet (PCIe bandwidth; SXM 2039); Lambda",
    ),
    "h100": Chip(
        r"nvidia h100 80gb hbm3", 989e12, 79.6 * _GiB, 3350e9, 2.99,
        "NVIDIA H100 datasheet, SXM; Lambda",
    ),
    "h100-pcie": Chip(
        r"nvidia h100 pcie", 756e12, 79.6 * _GiB, 2000e9, 2.49,
        "NVIDIA H100 datasheet, PCIe; Lambda",
    ),
    "h200": Chip(
        r"nvidia h200", 989e12, 140 * _GiB, 4800e9, 3.80,
        "NVIDIA H200 datasheet, SXM; RunPod",
    ),
    "gh200": Chip(
        r"nvidia gh200( 480gb)?", 989e12, 95 * _GiB, 4000e9, 1.49,
        "NVIDIA GH200 datasheet, 96 GB HBM3; Lambda",
    ),
    "b200": Chip(
        r"nvidia b200", 2250e12, 179 * _GiB, 8000e9, 4.99,
        "NVIDIA HGX B200 datasheet; Lambda",
    ),
    "l4": Chip(
        r"nvidia l4", 121e12, 22.5 * _GiB, 300e9, 0.71,
        "NVIDIA L4 datasheet; Google Cloud",
    ),
    "l40s": Chip(
        r"nvidia l40s", 362e12, 45 * _GiB, 864e9, 0.86,
        "NVIDIA L40S datasheet; RunPod",
    ),
    "rtx4090": Chip(
        r"nvidia geforce rtx 4090", 165.2e12, 24 * _GiB, 1008e9, 0.69,
        "NVIDIA Ada architecture whitepaper; RunPod",
    ),
    "rtx3090": Chip(
        r"nvidia geforce rtx 3090", 71e12, 24 * _GiB, 936e9, 0.46,
        "NVIDIA GA102 whitepaper; RunPod",
    ),
    "mi300x": Chip(
        r"amd instinct mi300x.*", 1307e12, 192 * _GiB, 5300e9, 2.69,
        "AMD MI300X datasheet; RunPod",
    ),
}  # fmt: skip


def find_chip(device_kind: str) -> Chip | None:
    """The chip that jax calls `device_kind`, or None: a laptop's variant of a card, a
    slice of one (MIG) or a new chip is not guessed at."""
    for chip in CHIPS.values():
        if re.fullmatch(chip.kinds, device_kind.lower()):
            return chip
    return None
