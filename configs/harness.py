"""Scores a model by lm-evaluation-harness (the extra `eval`), on tasks of your own.

    python -m llm.main --config=configs/harness.py --workdir=runs/harness \\
        --config.harness.folder=tasks --config.harness.tasks="('mine',)"

`tasks/` holds the harness's YAML files, such as

    task: mine
    dataset_path: json
    dataset_kwargs: {data_files: {test: tasks/items.jsonl}}
    test_split: test
    output_type: multiple_choice
    doc_to_text: "{{question}}"
    doc_to_choice: "{{choices}}"
    doc_to_target: "{{answer}}"

Its own benchmarks download their data. Writes harness.json. Scores are those of
`configs/evaluate.py` on the same items and templates.
"""

from llm import config


def get_config(arg=None):
    arg = config.parse_arg(arg, debug=False)
    c = config.base("harness")
    c.harness.model_dir = "runs/quickstart"
    return config.debug(c) if arg.debug else c
