"""Sentence classification: ours and the Trainer of transformers, with one budget.

    python benchmarks/classify.py --data=polarity.jsonl --model=FOLDER --workdir=DIR

The data are records `{"text": ..., "label": ...}`, the model is a BERT from Hugging
Face, as a folder. `configs/classify.py` cuts the data in three parts and trains; the
Trainer then reads the same parts, with the same tokenizer, epochs, peak learning rate,
schedule, decay, clipping and, since rows of ours hold several texts, as many texts a
step on average. Each is scored on the test part by the parameters of the best
validation loss. Needs the extras hf and oracle. Printed: the share that is right, its
95 % interval (bootstrap over texts), and the seconds of training; the machine had
better be idle for these.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import time

from llm import metrics
from llm.corpus import storage
from llm.training import metric_writer

LENGTH, ROWS = 64, 16  # tokens and rows of ours
RATE, DECAY, WARMUP = 5e-5, 0.01, 0.1


def ours(options, seed, folder):
    """Which texts of the test part are right, steps and seconds of training."""
    settings = {
        "seed": seed,
        "train.steps": 0,
        "train.epochs": float(options.epochs),
        "train.batch_size": ROWS,
        "train.seq_len": LENGTH,
        "train.validate_every": 100,
        "optimizer.learning_rate": RATE,
        "optimizer.weight_decay": DECAY,
        "optimizer.b2": 0.999,
        "schedule.warmup": WARMUP,
    }
    subprocess.run(
        [
            sys.executable, "-m", "llm.main", f"--workdir={folder}",
            f"--config=configs/classify.py:data={options.data},model={options.model}",
            *(f"--config.{name}={value}" for name, value in settings.items()),
        ],
        check=True,
    )  # fmt: skip
    test = storage.read(folder / "corpus", "test")
    asked = folder / "asked.txt"  # a text a line
    asked.write_text(
        "".join(d.text.replace("\n", " ") + "\n" for d in test), encoding="utf-8"
    )
    subprocess.run(
        [
            sys.executable, "-m", "llm.main", "--config=configs/predict.py",
            f"--workdir={folder / 'predict'}", f"--config.predict.model_dir={folder}",
            f"--config.predict.path={asked}",
        ],
        check=True,
    )  # fmt: skip
    predicted = json.loads((folder / "predict/predict.json").read_text("utf-8"))[
        "predictions"
    ]
    right = [p["best"] == d.meta["label"] for p, d in zip(predicted, test, strict=True)]
    trained = json.loads((folder / "train.json").read_text("utf-8"))
    return right, trained["steps"], metric_writer.read(folder)[-1]["seconds"]


def theirs(options, seed, folder, batch):
    """Which are right, and the seconds, of the Trainer on the parts that ours made."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    parts = {
        name: storage.read(folder / "corpus", name)
        for name in ("train", "validation", "test")
    }
    names = sorted({d.meta["label"] for d in parts["train"]})

    def encoded(documents):
        cut = tokenizer([d.text for d in documents], truncation=True, max_length=LENGTH)
        return [
            {"input_ids": ids, "labels": names.index(d.meta["label"])}
            for ids, d in zip(cut["input_ids"], documents, strict=True)
        ]

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        options.model, num_labels=len(names)
    )
    arguments = TrainingArguments(
        str(folder / "trainer"),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=64,
        learning_rate=RATE,
        weight_decay=DECAY,
        lr_scheduler_type="linear",
        warmup_steps=WARMUP,
        max_grad_norm=1.0,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=100,
        save_steps=100,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        seed=seed,
        use_cpu=True,
        report_to=[],
    )
    trainer = Trainer(
        model,
        arguments,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=encoded(parts["train"]),
        eval_dataset=encoded(parts["validation"]),
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    made = trainer.predict(encoded(parts["test"]))
    right = made.predictions.argmax(axis=-1) == made.label_ids
    return right.tolist(), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    for seed in range(options.seeds):
        folder = options.workdir / f"seed_{seed}"
        mine, steps, seconds = ours(options, seed, folder)
        texts = len(storage.read(folder / "corpus", "train"))
        batch = math.ceil(texts * options.epochs / steps)
        peer, peer_seconds = theirs(options, seed, folder, batch)
        mine, peer = ([(float(x), 1.0) for x in right] for right in (mine, peer))
        print(f"seed {seed}: {len(mine)} texts, {batch} a step")
        print(f"  ours     {metrics.ratio(mine)}, {seconds:.0f} s of training")
        print(f"  Trainer  {metrics.ratio(peer)}, {peer_seconds:.0f} s of training")
        print(f"  ours - Trainer {metrics.difference(peer, mine)}", flush=True)


if __name__ == "__main__":
    main()
