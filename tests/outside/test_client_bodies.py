"""What real clients send: answered, or refused in words that name the field.

`client_bodies/` has a file for each client and version. Bodies of Python clients were
recorded, those of web pages and editors are written as their source sends them. A body
with `refused` asks for what this server does not do, in that field.
"""

import json
import pathlib

import pytest
from served import given_model, make_service, post, running  # noqa: F401

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

FILES = sorted((pathlib.Path(__file__).parent / "client_bodies").glob("*.json"))
SENT = {
    f"{path.stem}, {sent['what']}": sent
    for path in FILES
    for sent in json.loads(path.read_text("utf-8"))["requests"]
}


@pytest.fixture(scope="module")
def url(model):
    service, _ = make_service(*model, context=512)
    with running(service) as address:
        yield address


@pytest.mark.parametrize("name", SENT)
def test_a_real_body_is_answered_or_refused_by_name(url, name):
    sent = SENT[name]
    got = post(url, sent["path"], sent["body"])
    if field := sent.get("refused"):
        assert got.status_code == 400
        assert field in got.json()["error"]["message"], got.text
        return
    assert got.status_code == 200, got.text
    if sent["body"].get("stream"):
        assert got.text.endswith("data: [DONE]\n\n") and '"error"' not in got.text
    elif sent["path"].endswith("embeddings"):
        assert len(got.json()["data"]) == len(sent["body"]["input"])
    else:
        assert got.json()["choices"][0]["finish_reason"] in ("stop", "length")


def test_every_client_says_who_it_is():
    for path in FILES:
        client = json.loads(path.read_text("utf-8"))
        assert client["client"] and client["version"] and client["requests"], path
        assert client["how"] in ("recorded", "by its source")
