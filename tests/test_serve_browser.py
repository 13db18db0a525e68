"""The page in a real browser: type, stream, stop, reload; it fits a phone."""

import json
import time

import chromium
import pytest
import served

from llm.serve.request_log import scrub

pytestmark = chromium.NEEDED

ANSWERS = "document.querySelectorAll('.turn.assistant .said')"


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    service, slots = served.make_service(
        *served.model(), folder=str(folder), context=512
    )
    piece = slots.step

    def slowly():
        time.sleep(0.02)
        return piece(1)

    slots.step = slowly
    with served.running(service) as url, chromium.page(folder) as page:
        yield page, url, slots, service, folder


def ask(page, text):
    page.run("document.getElementById('say').focus()")
    page.write(text)
    page.press("Enter")


def settle(page, **values):
    for name, value in values.items():
        page.run(
            f"{{const x = document.getElementById('{name}'); x.value = '{value}';"
            "x.dispatchEvent(new Event('input'))}"
        )


def test_type_stream_stop_reload(up, tmp_path):
    page, url, slots, service, folder = up
    page.open(url)
    assert page.run("document.title") == "tiny"
    settle(page, seed=3, max_tokens=400, temperature=1)
    ask(page, "hello")
    page.wait(f"{ANSWERS}.length == 1 && {ANSWERS}[0].textContent.length > 3")
    assert slots.busy == 1 and not page.run(chromium.IDLE)
    page.run("document.getElementById('stop-button').click()")
    page.wait(chromium.IDLE)
    stopped = page.run(f"{ANSWERS}[0].source")
    assert len(stopped) < 400
    assert service.scheduler.wait_idle(5) and slots.busy == 0
    # Likelihoods at a token that is pointed at.
    place = page.run(
        "(() => { const x = [...document.querySelectorAll('i.token')]"
        ".find(x => x.likely && x.textContent.trim());"
        "const b = x.getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y + b.height / 2] })()"
    )
    page.hover(*place)
    page.wait("!document.getElementById('likely').hidden")
    shown = page.run("document.getElementById('likely').innerText")
    assert shown.count("%") >= 5
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 5000
    # A thumb, and what is written of it.
    page.run("document.querySelector('.thumbs [title=\"A good answer\"]').click()")
    page.wait("document.getElementById('status').textContent.startsWith('written')")
    record = json.loads((folder / "ratings.jsonl").read_text())
    assert record["good"] and record["answer"][0]["content"] == scrub(stopped)
    # It is all there after a reload, and goes on.
    page.open(url)
    assert page.run(f"{ANSWERS}[0].source") == stopped
    assert page.run("document.getElementById('seed').value") == "3"
    settle(page, max_tokens=5)
    ask(page, "more")
    page.wait(f"{ANSWERS}.length == 2 && {chromium.IDLE}")
    assert page.run("document.querySelectorAll('.turn.user').length") == 2
    assert not page.errors


def test_text_goes_on_and_two_answers(up):
    page, url, _, _, folder = up
    page.open(url)
    page.run("document.getElementById('clear').click()")
    page.run("document.getElementById('tab-text').click()")
    page.run("document.getElementById('text').focus()")
    page.write("once upon")
    settle(page, max_tokens=6, seed=1)
    page.run("document.getElementById('send').click()")
    page.wait(chromium.IDLE + " && document.getElementById('text').value.length > 10")
    assert page.run("document.getElementById('text').value").startswith("once upon")
    page.run("document.getElementById('tab-chat').click()")
    page.run("document.getElementById('two').click()")
    ask(page, "which?")
    page.wait(f"{ANSWERS}.length == 2 && {chromium.IDLE}")
    texts = page.run(f"[...{ANSWERS}].map(x => x.source)")
    page.run(
        "[...document.querySelectorAll('.thumbs button')]"
        ".filter(x => x.textContent == 'This one is better')[1].click()"
    )
    page.wait(f"{ANSWERS}.length == 1")
    record = json.loads((folder / "preferences.jsonl").read_text().splitlines()[-1])
    assert record["chosen"][0]["content"] == scrub(texts[1])
    assert record["rejected"][0]["content"] == scrub(texts[0])
    assert record["prompt"] == [{"role": "user", "content": "which?"}]
    page.run("document.getElementById('two').click()")
    assert not page.errors


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(up, dark):
    page, url, *_ = up
    page.open(url, width=390, height=700, dark=dark)
    page.run("document.getElementById('clear').click()")
    settle(page, max_tokens=30)
    ask(page, "x" * 300)
    page.wait(f"{ANSWERS}.length == 1 && {chromium.IDLE}")
    page.run("document.getElementById('settings-button').click()")
    time.sleep(0.1)
    wide = page.run(
        "[...document.querySelectorAll('body *')].filter(x => x.id != 'likely' &&"
        " x.getClientRects().length && x.getBoundingClientRect().right > 390.5)"
        ".map(x => x.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert page.run("document.documentElement.scrollWidth") <= 390
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(15, 17, 21)" if dark else "rgb(246, 246, 244)")
    small = page.run(
        "[...document.querySelectorAll('button')].filter(x => x.offsetHeight &&"
        " x.offsetHeight < 34).map(x => x.textContent)"
    )
    assert small == []


def test_an_error_is_told(up):
    page, url, *_ = up
    page.open(url)
    page.run("document.getElementById('clear').click()")
    settle(page, max_tokens=400)
    ask(page, "y" * 600)
    page.wait("document.getElementById('status').className == 'bad'")
    assert "context length" in page.run("document.getElementById('status').innerText")
    assert page.run("document.getElementById('say').value") == "y" * 600
