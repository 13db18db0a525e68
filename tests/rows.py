"""What tests of objectives share: packed rows of a tokenizer with 24 pieces."""

import types

import numpy as np
import tiny

from llm import objectives, registry

PIECES = (
    *(b"",) * 4, b"a", b"b", b"ing", b" a", b" the", b".", b"(", b"\n    ", b"_x", b" ",
    b"\xc3", b"\xa9", b"x1", b",y", b"self.", b" = ", b"foo", b"Bar", b"9", b"\t",
)  # fmt: skip
V = len(PIECES)
PAD, BOS, EOS = 0, 2, 3
TOKENIZER = types.SimpleNamespace(
    vocab_size=V, piece_bytes=PIECES, pad_id=PAD, unk_id=1, bos_id=BOS, eos_id=EOS,
    never=(PAD, 1, BOS), ends=(EOS,),
)  # fmt: skip
LABELS = ("code", "prose", "other")
# One model of each kind that is quick to compile.
MODEL = {"causal": "gpt", "masked": "bert", "encdec": "t5"}


def build(name, **knobs):
    tiny_knobs = registry.module("objectives", name).TINY
    return objectives.build({"name": name, **tiny_knobs, **knobs}, V, TOKENIZER)


def bits(key, row):
    return np.random.Generator(np.random.Philox(key=key, counter=row << 128))


def record(T, lengths, seed=0):
    """A packed row of T + 1 tokens; the first document began in an earlier row."""
    rng = np.random.default_rng(seed)
    tokens, segments, positions = np.zeros((3, T + 1), np.int32)
    at = 0
    for segment, length in enumerate(lengths, 1):
        text = rng.integers(4, V, length)
        if segment > 1:
            text[0] = BOS
        text[-1] = EOS
        n = min(length, T + 1 - at)
        tokens[at : at + n] = text[:n]
        segments[at : at + n], positions[at : at + n] = segment, np.arange(n)
        at += n
    labels = np.where(segments > 0, (segments - 1) % len(LABELS), -1)
    return {
        "tokens": tokens, "segments": segments, "positions": positions,
        "labels": labels.astype(np.int32), "label_names": LABELS,
    }  # fmt: skip


def random_record(T, seed):
    """Documents of any lengths, and sometimes padding."""
    rng = np.random.default_rng(seed)
    mean = rng.choice([2, 5, 20, 200])
    lengths = 1 + rng.geometric(1 / mean, size=rng.integers(1, T))
    return record(T, lengths, seed)


def whole_records(of, T, seed, most=9):
    """A row of whole records of an objective that has room for them, by its parts."""
    rng = np.random.default_rng(seed)
    made = {name: [] for name in ("tokens", "segments", "positions", "labels")}
    left = [room for _, room in of.room(T)]
    for segment in range(1, most + 1):
        parts = sorted(part for some, _ in of.room(T) for part in some)
        sizes = {part: int(rng.integers(1, 6)) for part in parts}
        used = [sum(sizes[part] for part in some) for some, _ in of.room(T)]
        if any(n > room for n, room in zip(used, left, strict=True)):
            break
        left = [room - n for n, room in zip(used, left, strict=True)]
        count = sum(sizes.values())
        made["tokens"].append(rng.integers(4, V, count))
        made["segments"].append(np.full(count, segment))
        made["positions"].append(np.arange(count))
        made["labels"].append(np.repeat(parts, [sizes[part] for part in parts]))
    blank = {"tokens": PAD, "segments": 0, "positions": 0, "labels": -1}
    row = {}
    for name, held in made.items():
        held = np.concatenate(held)
        padding = np.full(T + 1 - len(held), blank[name])
        row[name] = np.concatenate([held, padding]).astype(np.int32)
    return row


def record_for(of, T, seed):
    """What the loader would give to an objective."""
    most = 1 if of.online else 9
    return whole_records(of, T, seed, most) if of.room else random_record(T, seed)


def batch_of(of, rows, T=64):
    made = [of.features(record_for(of, T, s), bits(7, s)) for s in range(rows)]
    batch = {name: np.stack([row[name] for row in made]) for name in made[0]}
    return batch | {"index": np.arange(rows, dtype=np.int32)}


def small_model(of):
    name = MODEL[of.kinds[0]]
    knobs = registry.spec("models", name, **registry.module("models", name).TINY)
    model = registry.build("models", knobs, vocab_size=V + of.extra_tokens)

    def init(key):
        return of.extend(key, tiny.init(model, key), model.width)

    return model, tiny.unboxed(init, seed=3)
