"""Requests that schemathesis makes of the server's own OpenAPI schema: never a 5xx."""

import subprocess
import sys

import pytest
import served

pytest.importorskip("schemathesis")


@pytest.mark.slow
def test_no_request_fails_the_server(tmp_path):
    service, slots = served.make_service(
        *served.model(), folder=str(tmp_path), most_waiting=10_000,
        most_of_client=10_000, context=64,
    )  # fmt: skip
    with served.running(service) as url:
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json",
             "--checks=not_a_server_error", "--max-examples=30", "--seed=1",
             "--phases=coverage,fuzzing"],
            capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert service.scheduler.wait_idle(30)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert slots.busy == 0
