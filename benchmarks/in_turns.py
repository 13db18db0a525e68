"""Sides of a benchmark in turns: each form of each in a process of its own.

A process that waits sleeps, so that the one at work has the whole machine (threads that
spin between products do so for milliseconds, which small products need); times of one
round are then of the same minute, and the median over rounds of their ratio does not
mind a machine that others use, too. What runs is made by a function at the top of a
benchmark, `make(*arguments) -> {part: run}`; `run()` does a part of the work, such as
one prefill, and returns the seconds that it took.
"""

import multiprocessing
import statistics

_WARM, _TRIES = 2, 2  # runs of a form before it is timed, and to choose the best by


def _serve(connection, make, arguments):
    """Makes what runs, warms it up, then runs a part for every message."""
    try:
        parts = make(*arguments)
        for run in list(parts.values()) * _WARM:
            run()
        connection.send("ready")
        while part := connection.recv():
            connection.send(parts[part]())
    except (RuntimeError, ImportError, ValueError, TypeError, OSError) as error:
        connection.send(f"{type(error).__name__}: {error}".splitlines()[0])


class Worker:
    """What `make(*arguments)` makes, in its own process, asleep until asked."""

    def __init__(self, make, *arguments):
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(end, make, arguments), daemon=True
        )
        self._process.start()
        end.close()  # else the end of a process that was killed is waited for
        try:
            self.problem = self._pipe.recv()
        except EOFError:
            self.problem = "its process was killed"
        self.problem = "" if self.problem == "ready" else self.problem

    def seconds(self, part):
        """What one run of a part takes."""
        self._pipe.send(part)
        seconds = self._pipe.recv()
        if isinstance(seconds, str):
            raise RuntimeError(f"{part}: {seconds}")
        return seconds

    def stop(self):
        """Ends the process."""
        self._process.terminate()
        self._process.join()


def best_forms(title, make, options, amounts):
    """The fastest form of each part: {part: (label, worker)}; the others are gone.

    Args:
      options: {label: arguments} of the forms.
      amounts: {part: tokens that a run of it works on}.
    """
    best, seen = {}, []
    for label, arguments in options.items():
        worker = Worker(make, *arguments)
        seen.append(worker)
        if worker.problem:
            print(f"  {title} {label}: {worker.problem}", flush=True)
        for part in amounts if not worker.problem else ():
            seconds = min(worker.seconds(part) for _ in range(_TRIES))
            print(
                f"  {title} {label}, {part}: {amounts[part] / seconds:,.0f} tokens/s",
                flush=True,
            )
            if part not in best or seconds < best[part][0]:
                best[part] = (seconds, label, worker)
        kept = {id(worker) for _, _, worker in best.values()}
        for other in [w for w in seen if id(w) not in kept]:
            other.stop()
            seen.remove(other)
    return {part: (label, worker) for part, (_, label, worker) in best.items()}


def in_turns(workers, part, tokens, rounds):
    """Times one part of all sides in turns, prints and returns its figures.

    Args:
      workers: {(side, form): worker}; sides are 'ours' and others.
      tokens: that a run works on.
    """
    times = {form: [] for form in workers}
    for _ in range(rounds):
        for form, worker in workers.items():
            times[form].append(worker.seconds(part))
    rows = {}
    for form, seconds in times.items():
        median = statistics.median(seconds)
        rows[" ".join(form)] = {"seconds": median, "tokens_per_s": tokens / median}
        print(
            f"  {' '.join(form):48} {median:8.3f} s {tokens / median:10,.0f} tokens/s"
        )
    ratios = {}
    for mine in (form for form in times if form[0] == "ours"):
        for theirs in (form for form in times if form[0] != "ours"):
            pairs = zip(times[theirs], times[mine], strict=True)
            ratio = statistics.median(t / m for t, m in pairs)
            name = f"{' '.join(theirs)} / {' '.join(mine)}"
            ratios[name] = ratio
            print(f"  {name}: {ratio:.2f}", flush=True)
    return {"rows": rows, "ratios": ratios}
