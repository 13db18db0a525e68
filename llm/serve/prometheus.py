"""Figures for Prometheus, by the names of vLLM with our prefix.

With `serve.metrics_prefix=vllm`, boards that were made for vLLM show this server.
"""

from typing import Any

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKENS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters and histograms of one server, and gauges that are read when asked.

    Args:
      scheduler: told of as requests running and waiting; None where nothing generates.
    """

    def __init__(self, prefix: str, model: str, scheduler: Any = None):
        import prometheus_client as prometheus

        self._write = prometheus.generate_latest
        self.registry = prometheus.CollectorRegistry()
        self._model = model

        def make(kind, name, text, labels=(), **more):
            made = kind(
                f"{prefix}:{name}", text, ["model_name", *labels],
                registry=self.registry, **more,
            )  # fmt: skip
            return made if labels else made.labels(model)

        counter, histogram = prometheus.Counter, prometheus.Histogram
        self.prompt_tokens = make(counter, "prompt_tokens", "Tokens of prompts.")
        self.generation_tokens = make(
            counter, "generation_tokens", "Tokens that were made."
        )
        self._success = make(
            counter, "request_success", "Requests that were answered, by what ended "
            "them.", ["finished_reason"],
        )  # fmt: skip
        self._refused = make(
            counter, "request_refused", "Requests that were not answered, by status.",
            ["status"],
        )  # fmt: skip
        self._guard = make(
            counter, "guard_findings", "What checks found, by check and side.",
            ["check", "side"],
        )  # fmt: skip
        seconds, tokens = {"buckets": _SECONDS}, {"buckets": _TOKENS}
        self.first_token = make(
            histogram, "time_to_first_token_seconds", "From a request to its first "
            "token.", **seconds,
        )  # fmt: skip
        self.between_tokens = make(
            histogram, "inter_token_latency_seconds", "Between tokens, as the mean of "
            "a piece.", **seconds,
        )  # fmt: skip
        self.whole = make(
            histogram, "e2e_request_latency_seconds", "From a request to its last "
            "token.", **seconds,
        )  # fmt: skip
        self.queued = make(
            histogram, "request_queue_time_seconds", "Before a slot was free.",
            **seconds,
        )  # fmt: skip
        self.prompt_lengths = make(
            histogram, "request_prompt_tokens", "Tokens of a prompt.", **tokens
        )
        self.answer_lengths = make(
            histogram, "request_generation_tokens", "Tokens of an answer.", **tokens
        )
        gauge = prometheus.Gauge
        for name, text, value in (
            ("num_requests_running", "Requests in slots.", "running"),
            ("num_requests_waiting", "Requests without a slot.", "waiting"),
        ):
            made = make(gauge, name, text)
            if scheduler is not None:
                made.set_function(lambda value=value: getattr(scheduler, value))

    def finished(self, reason: str) -> None:
        """Counts an answer."""
        self._success.labels(self._model, reason).inc()

    def refused(self, status: int) -> None:
        """Counts a request that was not answered."""
        self._refused.labels(self._model, str(status)).inc()

    def found(self, check: str, side: str, count: int = 1) -> None:
        """Counts findings of a guard's check in a 'prompt' or an 'answer'."""
        self._guard.labels(self._model, check, side).inc(count)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return self._write(self.registry)
