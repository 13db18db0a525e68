"""Compares a window of a server's traffic with a reference: monitor.json and a page.

Exit code 0: nothing drifted; 3: something did.
"""

from etils import epath
from ml_collections import ConfigDict

from llm import files, run_dir
from llm.errors import InputError, Stopped
from llm.knobs import Amount, section
from llm.reports import page
from llm.serve import drift, request_record
from llm.workloads import claim

DRIFTED = 3  # exit code


@section("monitor")
class Monitor:
    """Drift of the traffic."""

    # The request log of a server; one to compare with, '' is the same log before; and
    # how many hours at the end of the log are compared, 0 is all of it.
    log: str = ""
    reference: str = ""
    hours: Amount = 0.0


SECTIONS = (Monitor,)


def run(c: ConfigDict, workdir: str) -> None:
    """Compares the logs of `c.monitor`."""
    m = c.monitor
    if not m.log:
        raise InputError(got="no monitor.log", want="the log of a server")
    if not m.reference and not m.hours:
        raise InputError(
            got="no monitor.reference",
            want="another log, or monitor.hours: the last of them are compared with "
            "what came before",
        )
    window = request_record.read(m.log)
    reference = request_record.read(m.reference) if m.reference else window
    if m.hours:
        start = window[-1].time - 3600 * m.hours
        if not m.reference:
            reference = [r for r in reference if r.time < start]
        window = [r for r in window if r.time >= start]
    findings, missing = drift.compare(reference, window)
    claim(c, workdir)
    drifted = [f.name for f in findings if f.level == "drift"]
    made = {
        "drift": drifted,
        "reference_records": len(reference),
        "window_records": len(window),
        "findings": [f._asdict() for f in findings],
        "not_compared": missing,
    }
    for f in findings:
        print(f"{f.name}: PSI {f.psi:.3f} of {f.threshold:.3f}, {f.level}")
    if missing:
        print(f"not in both logs: {', '.join(missing)}")
    root = epath.Path(workdir)
    run_dir.write(workdir, "monitor.json", made)
    files.write_text(root / "monitor.html", page.render("drift.html.j2", **made))
    if drifted:
        raise Stopped(
            f"drift: {', '.join(drifted)}; see {root / 'monitor.html'}", DRIFTED
        )
