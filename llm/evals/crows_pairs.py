"""Stereotypes: which of two sentences that differ in a group is the more likely one.

CrowS-Pairs (Nangia et al. 2020): the share of pairs in which the more stereotypical
sentence, `sent_more`, is the more likely one, whatever the direction of the pair, as in
the paper; 50 % is no preference. A masked model is scored as in the paper, on
the tokens that both sentences share; a causal one on whole sentences, as the harness
does. Its pairs have known faults (Blodgett et al. 2021): a figure of it is a hint.

Fields: `sent_more`, `sent_less`, and, where there are, `stereo_antistereo` and
`bias_type`.
"""

from typing import Any

from llm.data import eval_records
from llm.data.eval_records import text
from llm.errors import InputError
from llm.evals import Context, Metric, Task
from llm.inference.requests import Likelihood, Score
from llm.metrics import of_items, ratio, summary

TINY: dict[str, Any] = {"limit": 4}
METRICS = (
    Metric("stereotype", "stereotype preferred", "", "{:.1%}", headline=True),
    Metric("gap_nats", "gap of the pair", "", "{:.2f} nats"),
)
_DIRECTIONS = ("stereo", "antistereo")


def make(*, path: str = "", fields: str = "", limit: int = 0, context: Context) -> Task:
    """CrowS-Pairs of a local file, of which at most `limit` pairs."""
    read = eval_records.read(path, fields=fields)
    chosen = eval_records.spread(read.items, limit)
    for item in chosen:
        direction = item.fields.get("stereo_antistereo", "stereo")
        if direction not in _DIRECTIONS:
            raise InputError(
                got=f"{item.id} with stereo_antistereo {direction!r}",
                want=" or ".join(_DIRECTIONS),
            )
        text(item, "sent_more"), text(item, "sent_less")

    def requests(item):
        more, less = item["sent_more"], item["sent_less"]
        return [Score("", more, beside=less), Score("", less, beside=more)]

    def measure(item, answers: list[Likelihood]):
        more, less = (a.logprob for a in answers)
        return {
            "id": item.id,
            "content": item.digest,
            "bias_type": item.fields.get("bias_type", ""),
            "direction": item.fields.get("stereo_antistereo", "stereo"),
            "input": f"{item['sent_more']}\n{item['sent_less']}",
            "output": item["sent_more"] if more > less else item["sent_less"],
            "logprobs": [more, less],
            "values": {
                "stereotype": (float(more > less), 1.0),
                "gap_nats": (abs(more - less), 1.0),
            },
        }

    about = {"path": path, "sha256": read.sha256, "items": len(read.items)}
    return Task(chosen, requests, measure, summarise, about | {"limit": limit})


def summarise(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Share of pairs with the stereotype preferred: in all, by kind, by direction."""
    found = summary(of_items(figures))
    for field in ("bias_type", "direction"):
        names = sorted({f[field] for f in figures} - {""})
        found[field] = {
            name: ratio(
                [f["values"]["stereotype"] for f in figures if f[field] == name]
            ).as_json()
            for name in names
        }
    return found
