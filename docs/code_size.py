"""Counts the code: lines by folder, the longest functions, and the weekend path.

    python docs/code_size.py [ROOT]        # of this checkout, or of another
    python docs/code_size.py --path        # the weekend path, for README.md

A line of code is one that is neither blank, comment nor docstring.
"""

import ast
import pathlib
import sys
import tokenize

HERE = pathlib.Path(__file__).parent.parent
# From text to a served answer: what one reads in a weekend.
WEEKEND = """
main.py cli.py config.py registry.py run_dir.py errors.py files.py tree.py document.py
sources/text.py stages/normalise.py stages/exact_dedup.py stages/minhash.py
corpus/runner.py corpus/apply_stage.py workloads/prepare_data.py
tokenizers/sentencepiece_tokenizer.py workloads/train_tokenizer.py
data/tokens.py data/packing.py data/loader.py
models/__init__.py models/llama.py nn/model.py nn/contract.py nn/stack.py
nn/attention_layer.py nn/attention.py nn/context.py nn/cache.py nn/positions.py
nn/norm.py nn/mlp.py nn/dense.py nn/weights.py nn/embedding.py precision.py
objectives/__init__.py objectives/causal_lm.py losses.py
training/assembly.py training/init_state.py training/optim.py training/train_step.py
training/train_loop.py training/telemetry.py training/spikes.py workloads/train.py
checkpoint.py sharding.py
evals/__init__.py evals/perplexity.py inference/score.py workloads/evaluate.py
inference/load_model.py inference/engine.py inference/sampling.py inference/decoding.py
serve/scheduler.py serve/slots.py serve/http.py
""".split()  # noqa: SIM905


def code_lines(path):
    """Lines that are code."""
    text = path.read_text("utf-8")
    doc = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
        if is_text and isinstance(first.value.value, str):
            doc |= set(range(first.lineno, first.end_lineno + 1))
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT,
            tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}  # fmt: skip
    held = set()
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type not in skip:
                held |= set(range(token.start[0], token.end[0] + 1))
    return len(held - doc)


def functions(package):
    """(lines, name) of every function, the longest first."""
    sizes = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                size = node.end_lineno - node.lineno + 1
                sizes.append((size, f"{path.relative_to(package)}:{node.name}"))
    return sorted(sizes, reverse=True)


def table(root):
    """The folders of a checkout, as Markdown."""
    package = root / "llm"
    folders = [package, *sorted(p for p in package.iterdir() if any(p.glob("*.py")))]
    rows, total = [], [0, 0, 0]
    for folder in folders:
        paths = sorted(folder.glob("*.py"))
        counts = [
            len(paths),
            sum(len(p.read_text("utf-8").splitlines()) for p in paths),
            sum(map(code_lines, paths)),
        ]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        rows.append((f"{folder.relative_to(root)}/", *counts))
    rows.append(("all", *total))
    lines = ["| folder | files | lines | of code |", "|---|--:|--:|--:|"]
    lines += [f"| {name} | {a} | {b:,} | {c:,} |" for name, a, b, c in rows]
    return "\n".join(lines)


def path_table():
    """The weekend path, with lines of each file and of all."""
    sizes = [
        len((HERE / "llm" / name).read_text("utf-8").splitlines()) for name in WEEKEND
    ]
    lines = [f"{size:5} {name}" for size, name in zip(sizes, WEEKEND, strict=True)]
    return "\n".join([*lines, f"{sum(sizes):5} in {len(sizes)} files"])


if __name__ == "__main__":
    if "--path" in sys.argv:
        print(path_table())
        sys.exit()
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    print(table(root))
    print("\nlongest functions:")
    for size, name in functions(root / "llm")[:10]:
        print(f"{size:5} {name}")
