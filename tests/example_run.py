"""A run directory as a real run leaves it, with invented figures, for report tests.

python tests/example_run.py DIR writes one to look at.
"""

import json
import math
import pathlib
import random
import sys

STEPS = 600

DEF = '''def read_header(self, stream, limit=None):
    """Read one header block and return it as a dictionary."""
'''
VALID = """    headers = {}
    while True:
        line = stream.readline(limit or 65536)
        if line in (b"\\r\\n", b"\\n", b""):
            break
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    # The caller owns the stream.
    return headers
"""
INVALID = """    for item in self._items
        if isinstance(item, (list, tuple)) and len(item) == 2:
            self.append(item[0], 0x1F)
    return self
"""
HOSTILE = "<script>document.title = 'broken & owned'</script>\n"


def write(workdir):
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    for name, result in RESULTS.items():
        (workdir / f"{name}.json").write_text(json.dumps(result))
    with (workdir / "metrics.jsonl").open("w") as file:
        for record in metrics():
            file.write(json.dumps(record) + "\n")
    return workdir


def metrics():
    rng = random.Random(0)
    for step in range(5, STEPS + 1, 5):
        loss = 2.35 + 5.9 * math.exp(-step / 28) + 1.5 * math.exp(-step / 260)
        warm = min(step / 30, 1.0)
        decay = 0.1 + 0.45 * (1 + math.cos(math.pi * step / STEPS))
        speed = 12_400 + rng.gauss(0, 160) - 900 * (step % 150 == 0)
        record = {
            "step": step,
            "loss": loss + rng.gauss(0, 0.05),
            "grad_norm": 0.55 + 2.8 * math.exp(-step / 40) + abs(rng.gauss(0, 0.07)),
            "learning_rate": 0.02 * warm * decay,
            "tokens": step * 8192,
            "tokens_per_s": speed,
            "model_flops_per_s": speed * 2.6e7,
            "mfu": speed * 2.6e7 / 5.2e11,
            "eta_s": (STEPS - step) * 0.66,
            "epoch": step / 410,
            "seconds": step * 0.66,
        }
        if step % 50 == 0:
            gap = 0.05 + 0.12 * step / STEPS
            record["validation_loss"] = loss + gap
        yield record


RESULTS = {
    "config": {
        "config": {
            "workload": "pipeline",
            "seed": 0,
            "mesh": [["data", -1]],
            "rules": "fsdp",
            "data": {
                "source": {"name": "stdlib", "max_documents": 0},
                "stages": ["normalise", "generated", "exact_dedup", "minhash"],
                "validation_fraction": 0.05,
                "test_fraction": 0.05,
            },
            "tokenizer": {"vocab_size": 4096, "kind": "bpe"},
            "model": {
                "name": "llama", "layers": 6, "model_dim": 256, "heads": 4,
                "kv_heads": 2, "head_dim": 64, "ffn_dim": 768, "tied": True,
            },
            "optimizer": {
                "name": "muon", "learning_rate": 0.003, "muon_learning_rate": 0.02,
                "weight_decay": 0.1, "decay": ".*(kernel|embedding)", "freeze": "",
            },
            "schedule": {"name": "wsd", "warmup": 0.05, "decay": 0.2, "final": 0.1},
            "train": {
                "steps": 600, "batch_size": 32, "seq_len": 256, "dtype": "bfloat16",
                "patience": 0, "overfit_gap": 0.5,
            },
        },
        "versions": {
            "jax": "0.12.0", "flax": "0.12.12", "optax": "0.2.8", "grain": "0.2.16",
            "orbax-checkpoint": "0.12.1", "sentencepiece": "0.2.1",
        },
        "git_commit": "df0e86f3a1b24c5d6e7f8091a2b3c4d5e6f70819",
        "device_kind": "cpu",
        "devices": 1,
        "python": "3.12.11",
    },
    "prepare_data": {
        "source": {"name": "stdlib", "max_documents": 0},
        "stages": [
            {
                "name": "normalise", "documents_in": 4312, "documents_out": 4305,
                "bytes_in": 33_120_331, "bytes_out": 32_998_210,
                "dropped": {
                    "not_utf8": {
                        "documents": 7, "bytes": 121_004,
                        "examples": ["encodings/cp037.py", "test/bad_coding.py"],
                    }
                },
            },
            {
                "name": "generated", "documents_in": 4305, "documents_out": 4121,
                "bytes_in": 32_998_210, "bytes_out": 26_410_998,
                "dropped": {
                    "table_of_literals": {
                        "documents": 131, "bytes": 5_402_110,
                        "examples": ["encodings/cp1250.py", "html/entities.py"],
                    },
                    "generated_header": {
                        "documents": 53, "bytes": 1_185_102,
                        "examples": ["pydoc_data/topics.py", "keyword.py"],
                    },
                },
            },
            {
                "name": "exact_dedup", "documents_in": 4121, "documents_out": 4090,
                "bytes_in": 26_410_998, "bytes_out": 26_388_001,
                "dropped": {
                    "duplicate": {"documents": 31, "bytes": 22_997, "examples": []}
                },
            },
            {
                "name": "minhash", "documents_in": 4090, "documents_out": 3977,
                "bytes_in": 26_388_001, "bytes_out": 25_201_556,
                "dropped": {
                    "near_duplicate": {
                        "documents": 113, "bytes": 1_186_445,
                        "examples": ["idlelib/<pyshell>.py", "lib2to3/tests/data.py"],
                    }
                },
            },
        ],
        "splits": {
            "train": {
                "documents": 3560, "bytes": 22_611_002,
                "groups": ["asyncio", "collections", "ctypes", "email", "http", "json"],
            },
            "validation": {
                "documents": 207, "bytes": 1_290_553, "groups": ["logging", "sqlite3"],
            },
            "test": {
                "documents": 210, "bytes": 1_300_001, "groups": ["multiprocessing"],
            },
        },
        "documents": 4312,
        "raw_bytes": 33_120_331,
        "skipped": {"empty": {"documents": 9, "examples": ["test/__init__.py"]}},
        "seconds": 31.4,
    },
    "train_tokenizer": {
        "vocab_size": 4096,
        "fingerprint": "9f4c7a3b2e1d0c8b7a6f5e4d3c2b1a09",
        "bytes_per_token": {"train": 3.412, "validation": 3.296, "test": 3.301},
        "tokens": {"train": 6_626_905, "validation": 391_551, "test": 393_820},
        "examples": [
            {
                "text": "        raise ValueError('<bad> π')",
                "pieces": [
                    "        ", "raise", " Value", "Error", "('", "<", "bad", ">",
                    " ", "π", "')",
                ],
            }
        ],
        "unused_pieces": 12,
        "seconds": 18.2,
    },
    "train": {
        "steps": STEPS,
        "tokens": STEPS * 8192,
        "epochs": 0.74,
        "parameters": 4_983_552,
        "seconds": 396.0,
        "validation_loss": 2.66,
        "best_validation_loss": 2.66,
        "best_step": 600,
        "stopped_early": False,
        "tokens_per_s": 12_412.0,
        "mfu": 0.621,
        "optimizer_groups": [
            {"optimizer": "muon", "leaves": 7, "parameters": 3_932_160},
            {"optimizer": "adamw", "leaves": 9, "parameters": 1_051_392},
        ],
        "events": [
            {"step": 0, "event": "start", "message": "attention: XLA, head-major"},
            {
                "step": 550, "event": "overfitting",
                "message": "Validation loss is 0.51 above the training loss.",
            },
            {"step": 600, "event": "checkpoint", "message": "best so far, 2.660"},
        ],
    },
    "evaluate": {
        "split": "test",
        "bits_per_byte": 1.1583,
        "perplexity": 14.31,
        "token_accuracy": 0.4412,
        "tokens": 393_820,
        "bytes": 1_300_001,
        "documents": 210,
        "syntax_valid_rate": 0.57,
        "syntax_corpus_rate": 0.981,
        "syntax_distinct_rate": 0.99,
        "syntax_examples": [
            {"prompt": DEF, "completion": VALID, "valid": True, "reason": ""},
            {
                "prompt": "def extend(self, items):\n", "completion": INVALID,
                "valid": False, "reason": "does_not_parse",
            },
        ],
        "seconds": 22.0,
    },
    "generate": {
        "samples": [
            {
                "prompt": "def ", "stop_reason": "end",
                "completion": "_find_spec(name, path=None):\n    spec = None\n"
                "    for finder in sys.meta_path:\n        with _ImportLock():\n"
                "            spec = finder.find_spec(name, path)\n"
                "        if spec is not None:\n            return spec\n",
            },
            {
                "prompt": "The module", "stop_reason": "length",
                "completion": " provides a class that is used\0 to read the " + HOSTILE,
            },
        ],
        "sampling": {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "seed": 0},
    },
}  # fmt: skip

if __name__ == "__main__":
    write(sys.argv[1])
