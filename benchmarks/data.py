"""From WARC files to a clean corpus, end to end, ours and datatrove's in turns.

    python benchmarks/data.py PAGES --rounds=3

PAGES is a folder of .warc.gz, such as `configs/crawl.py` leaves. Both take the main
text out (resiliparse here, trafilatura there, which is datatrove's own choice), apply
the rules of Gopher, C4 and FineWeb, redact e-mail and IP addresses, and remove near
copies by MinHash (42 bands of 3 here, 14 of 8 there), in two processes, from files to
files, each run a process of its own in an empty folder. datatrove needs the extra
`oracle` and spaCy. `--extractor=trafilatura` has both extract alike; then come our
stages one by one, and the tokenizer that is trained on what is left.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
STAGES = (
    "normalise", "gopher_repetition", "gopher_quality", "c4_lines", "c4", "fineweb",
    "pii", "minhash",
)  # fmt: skip

_OURS = """
import json, pathlib, sys
from llm.corpus import runner
if __name__ == "__main__":
    pages, out, processes, extractor, stages = sys.argv[1:]
    source = {"name": "warc", "path": pages, "extractor": extractor}
    stages = [(name, {"kinds": ("email", "ip")} if name == "pii" else {})
              for name in stages.split(",") if name]
    done = runner.run(
        runner.Settings(pathlib.Path(out), source, stages), int(processes)
    )
    with open(out + "/corpus.jsonl", "w") as file:
        for document in done.documents():
            file.write(json.dumps({"id": document.id, "text": document.text}) + "\\n")
    left = sum(about["bytes"] for about in done.abouts())
    print(json.dumps(done.given | {"left": left, "digest": 0}))
"""

_THEIRS = """
import sys
from datatrove.executor import LocalPipelineExecutor as Executor
from datatrove.pipeline import dedup, extractors, filters, formatters, readers, writers
if __name__ == "__main__":
    pages, out, processes, extractor, _ = sys.argv[1:]
    processes = int(processes)
    config = dedup.minhash.MinhashConfig()
    clean, signed = out + "/clean", out + "/signatures"
    Executor([
        readers.WarcReader(pages, glob_pattern="*.warc.gz"),
        extractors.Trafilatura(timeout=10),
        filters.GopherRepetitionFilter(), filters.GopherQualityFilter(),
        filters.C4QualityFilter(), filters.FineWebQualityFilter(),
        formatters.PIIFormatter(), writers.JsonlWriter(clean, compression=None),
    ], tasks=processes, workers=processes, logging_dir=out + "/log1").run()
    Executor([
        readers.JsonlReader(clean), dedup.MinhashDedupSignature(signed, config=config)
    ], tasks=processes, workers=processes, logging_dir=out + "/log2").run()
    Executor([
        dedup.MinhashDedupBuckets(signed, out + "/buckets", config=config)
    ], tasks=config.num_buckets, workers=processes, logging_dir=out + "/log3").run()
    Executor([
        dedup.MinhashDedupCluster(out + "/buckets", out + "/remove", config=config)
    ], tasks=1, workers=1, logging_dir=out + "/log4").run()
    Executor([
        readers.JsonlReader(clean), dedup.MinhashDedupFilter(out + "/remove"),
        writers.JsonlWriter(out + "/corpus", compression=None),
    ], tasks=processes, workers=processes, logging_dir=out + "/log5").run()
"""


def timed(script, *arguments):
    """(seconds, what it printed last) of a process in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "run.py")
        file.write_text(script, encoding="utf-8")
        out = pathlib.Path(folder, "out")
        out.mkdir()
        pages, *rest = arguments
        words = [sys.executable, file, pages, out, *map(str, rest)]
        start = time.perf_counter()
        done = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": folder},
         encoding="utf-8")  # fmt: skip
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{done.stderr[-2000:]}\nthe run ended with {done.returncode}")
        made = sum(
            1 for file in out.glob("corpus*") for one in _files(file)
            for _ in one.open("rb")
        )  # fmt: skip
        shutil.rmtree(out)
        return seconds, made, (done.stdout.strip().splitlines() or ["{}"])[-1]


def _files(path):
    return path.rglob("*.jsonl") if path.is_dir() else [path]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", help="a folder of .warc.gz files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--extractor", default="resiliparse", choices=("resiliparse", "trafilatura")
    )
    args = parser.parse_args()
    stages = ",".join(STAGES)
    ours, theirs, given = [], [], {}
    for number in range(args.rounds):
        seconds, made, said = timed(
            _OURS, args.pages, args.processes, args.extractor, stages
        )
        given = json.loads(said)
        ours.append(seconds)
        other, left, _ = timed(_THEIRS, args.pages, args.processes, "", "")
        theirs.append(other)
        print(
            f"round {number + 1}: ours {seconds:.1f} s, {made} documents left; "
            f"datatrove {other:.1f} s, {left} left; {other / seconds:.1f} times",
            flush=True,
        )
    size = sum(f.stat().st_size for f in pathlib.Path(args.pages).glob("*.warc.gz"))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    for name, found in (("ours", ours), ("datatrove", theirs)):
        seconds = statistics.median(found)
        print(
            f"{name}: {seconds:.1f} s, {given['documents'] / seconds:.1f} pages/s, "
            f"{given['raw_bytes'] / seconds / 1e6:.2f} MB/s of text, "
            f"{size / seconds / 1e6:.2f} MB/s of .warc.gz"
        )
    print(f"datatrove takes {statistics.median(ratios):.1f} times as long (median)")
    before = timed(_OURS, args.pages, 1, args.extractor, "")[0]
    print(f"reading and extracting alone, one process: {before:.1f} s")
    for number in range(len(STAGES)):
        some = ",".join(STAGES[: number + 1])
        seconds, left, _ = timed(_OURS, args.pages, 1, args.extractor, some)
        cost = max(seconds - before, 1e-3)
        rate = given["raw_bytes"] / cost / 1e6
        print(f"  {STAGES[number]}: {cost:.1f} s more, {rate:.1f} MB/s, {left} left")
        before = seconds


if __name__ == "__main__":
    main()
