"""Checks of prompts and answers that block, redact or log, by policy.

A check (a file of `llm/guards/`) finds places in a text. Answers are checked while they
stream: characters that a finding may still begin or end with wait, so a finding that
is spread over pieces is found, and nothing of it is shown. Off unless configured.

    guard = Guard([(check, "redact")])
    stream = guard.stream()
    shown = stream.write(piece) + ... + stream.write("", last=True)
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llm import registry
from llm.errors import InputError

POLICIES = ("block", "redact", "log")
REDACTED = "[redacted]"


class Check(NamedTuple):
    """What a guard's plug-in makes.

    Attributes:
      find: the places of a text, (first, after the last), that it does not like.
      reach: characters at the end of a text that more text may make part of a finding.
      every: characters after which a text is looked at as a whole, for a check that
        judges whole texts; 0 for one that finds places.
    """

    find: Callable[[str], list[tuple[int, int]]]
    reach: int
    every: int = 0


class Guard:
    """Named checks with a policy each."""

    def __init__(self, checks: Sequence[tuple[str, Check, str]] = ()):
        self.checks = tuple(checks)

    @property
    def hides(self) -> bool:
        """Whether some of a text may not be shown."""
        return any(policy != "log" for _, _, policy in self.checks)

    def stream(self) -> "Guarded":
        """For one answer."""
        return Guarded(self.checks)

    def prompt(self, text: str) -> "Guarded":
        """What became of a whole text: see its `text`, `blocked` and `findings`."""
        guarded = Guarded(self.checks)
        guarded.write(text, last=True)
        return guarded


class Guarded:
    """A text while it comes.

    Attributes:
      text: what may be shown so far.
      blocked: the check that ended it, or ''.
      findings: {check: findings so far}.
    """

    def __init__(self, checks: Sequence[tuple[str, Check, str]]):
        self._checks = checks
        self.text, self.blocked = "", ""
        self.findings: dict[str, int] = {}
        self._held, self._before = "", ""
        self._seen = 0  # characters of `before + held` that were told of already

    def write(self, piece: str, last: bool = False) -> str:
        """What of the text may be shown after another piece of it."""
        if self.blocked or not self._checks:
            self.text += "" if self.blocked else piece
            return "" if self.blocked else piece
        self._held += piece
        every = max(check.every for _, check, _ in self._checks)
        if len(self._held) < every and not last:
            return ""
        reach = max(check.reach for _, check, _ in self._checks)
        cut = len(self._held) if last else max(len(self._held) - reach, 0)
        spans = self._spans(cut)
        # A finding that begins before the cut is settled as a whole.
        cut = max([cut, *(end for _, end, _, _ in spans)])
        shown, at = "", 0
        for start, end, name, policy in sorted(spans):
            self.findings[name] = self.findings.get(name, 0) + 1
            if policy == "log" or end <= at:
                continue
            shown += self._held[at : max(start, at)]
            at = end
            if policy == "block":
                self.blocked, cut = name, end
                break
            shown += REDACTED
        shown += "" if self.blocked else self._held[at:cut]
        self._before = (self._before + self._held[:cut])[-max(reach, 2000) :]
        self._held = self._held[cut:]
        self.text += shown
        return shown

    def _spans(self, cut: int) -> list[tuple[int, int, str, str]]:
        """Findings that begin in what is held, before the cut."""
        found, whole, far = [], self._before + self._held, len(self._before)
        for name, check, policy in self._checks:
            for start, end in check.find(whole):
                if check.every and end > far:
                    found.append((0, len(self._held), name, policy))
                elif far <= start < far + cut:
                    found.append((start - far, end - far, name, policy))
        return found


def build(
    wanted: Sequence[tuple[str, str]], knobs: dict[str, dict], device: Any = None
) -> Guard:
    """The guard of a config.

    Args:
      wanted: (name of a file of llm/guards/, policy) pairs.
      knobs: of each.
      device: where a check's model works.
    """
    checks = []
    for pair in wanted:
        if len(pair) != 2 or isinstance(pair, str) or pair[1] not in POLICIES:
            raise InputError(
                got=f"serve.guard {pair!r}",
                want=f"pairs of a check and {' or '.join(POLICIES)}, such as "
                "(('words', 'block'),)",
            )
        name, policy = pair
        spec = {"name": name, **knobs.get(name, {})}
        checks.append(
            (name, Check(*registry.build("guards", spec, device=device)), policy)
        )
    return Guard(checks)
