"""Two evaluated runs beside each other: compare.json and compare.html."""

from etils import epath
from ml_collections import ConfigDict

from llm import files, run_dir
from llm.errors import InputError
from llm.knobs import section
from llm.reports import comparison
from llm.workloads import claim


@section("compare")
class Compare:
    """Two evaluations beside each other."""

    # The workdirs of two evaluations.
    runs: tuple[str, ...] = ()


SECTIONS = (Compare,)


def run(c: ConfigDict, workdir: str) -> None:
    """Compares the evaluations of `c.compare.runs`."""
    runs = tuple(c.compare.runs)
    if len(runs) != 2 or not all(isinstance(r, str) for r in runs):
        raise InputError(
            got=f"compare.runs {runs}",
            want="two workdirs of evaluations: ('runs/a', 'runs/b')",
        )
    made = comparison.compare(*runs)
    claim(c, workdir)
    for name, task in made["tasks"].items():
        for figure, both in task["figures"].items():
            gap = both["difference"]
            low, high = gap["interval"]
            print(
                f"{name}, {figure}: {both['one']['value']:.4g} and "
                f"{both['other']['value']:.4g}, {gap['value']:+.4g} "
                f"({low:+.4g} to {high:+.4g}): {comparison.verdict(figure, both)}"
            )
    root = epath.Path(workdir)
    run_dir.write(workdir, "compare.json", made)
    files.write_text(root / "compare.html", comparison.html(made))
    print(f"page: {root / 'compare.html'}")
