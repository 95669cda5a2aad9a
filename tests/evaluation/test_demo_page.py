"""The demo as visitors meet it: its addresses, its Space folder, and its page driven in a real Chromium."""

import json
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("gradio", reason="gradio (extra `demo`) is not installed")

from lexmotion.evaluation.viewer.demo import UPLOAD_BYTES
from lexmotion.hub_cards.space import app as space
from lexmotion.hub_cards.space_folder import write_space

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# No network, and nothing left behind: the profile is new and deleted by playwright.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SECONDS = 20_000  # milliseconds a step may take on a busy machine


@pytest.fixture(scope="module")
def client(demo):
    from starlette.testclient import TestClient

    return TestClient(space.server(demo))


def test_addresses_answer(client, tmp_path, bodies):
    assert "<canvas" not in (page := client.get("/")).text and "LEXMOTION_DATA" in page.text
    hits = client.post("/api/search", json={"text": "a person kicks"}).json()["hits"]
    view = client.post("/api/view", json={"kind": "item", "id": hits[0]["id"], "question": {"text": "kicks"}})
    assert view.json()["motion"]["joints"] == 22
    np.save(tmp_path / "own.npy", bodies[0])
    taken = client.post("/api/upload?name=own.npy", content=(tmp_path / "own.npy").read_bytes()).json()
    assert set(taken) == {"key", "name", "seconds", "notes"}


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("search", b"{}", "upload"),
        ("view", b'{"id": "nowhere"}', "'nowhere'"),
        ("word", b'{"word": "kickss"}', "'kickss'"),
        ("upload?name=a.npy", b"no array", "a.npy"),
        ("upload?name=a.npy&fps=-1", b"no array", "fps"),
        ("upload?name=a.npy", b"0" * (UPLOAD_BYTES + 1), "64 MB"),
    ],
)
def test_mistakes_are_answers(client, path, content, message):
    reply = client.post(f"/api/{path}", content=content)
    assert reply.status_code == 200 and message in reply.json()["error"] and "\n" not in reply.json()["error"]


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("search", b"[1]", "JSON object"),
        ("search", b"no json", "Expecting value"),
        ("search", b"[" * 60_000, "JSON object"),
        ("search", b'{"text": "\\ud800"}', "surrogates"),
        ("view", b'{"id": ["x"]}', "['x']"),
        ("view", b'{"id": "clip0", "kind": "bogus"}', "'bogus'"),
        ("view", b'{"id": "clip0", "question": []}', "question"),
    ],
)
def test_requests_of_a_wrong_form_are_refused(client, path, content, message):
    reply = client.post(f"/api/{path}", content=content)
    assert reply.status_code == 400 and message in reply.json()["error"] and "\n" not in reply.json()["error"]


@pytest.mark.parametrize("name", ["word", "search", "view"])
@pytest.mark.parametrize("chunked", [False, True])
def test_long_questions_are_refused(client, name, chunked):
    content = b'{"text": "' + b"a" * space.JSON_BYTES + b'"}'
    assert client.post(f"/api/{name}", content=iter([content]) if chunked else content).status_code == 413


@pytest.mark.parametrize("path", space.CLOSED)
def test_gradios_own_uploads_are_closed(demo, path):
    app = space.server(demo)
    app.post(path)(lambda: "stored")  # as gradio adds it when it starts
    from starlette.testclient import TestClient

    client = TestClient(app)
    assert {client.post(path + end, files={"files": b"x"}).status_code for end in ("", "/")} == {404}


def test_a_space_folder_opens_by_what_lies_in_it(demo, tmp_path, monkeypatch):
    folder = tmp_path / "space"
    demo.model.config.text_config.encoder_config._name_or_path = str(tmp_path / "bert")
    assert write_space(demo, folder) == 4
    assert str(tmp_path) not in (folder / "model" / "config.json").read_text()
    names = {path.name for path in folder.iterdir()}
    assert names == {"app.py", "README.md", "requirements.txt", "model", "motions.index", "motions.safetensors"}
    assert "app_file: app.py" in (folder / "README.md").read_text()
    monkeypatch.setattr(space, "__file__", str(folder / "app.py"))
    for name in ("MODEL", "INDEX", "DATASET", "SPLIT"):
        monkeypatch.delenv(f"LEXMOTION_{name}", raising=False)
    monkeypatch.setenv("LEXMOTION_TITLE", "My motions")
    opened = space.demo_of_environment()
    assert opened.title == "My motions" and opened.clip("clip0") is not None
    monkeypatch.setenv("LEXMOTION_MODEL", str(folder / "model"))
    monkeypatch.setenv("LEXMOTION_INDEX", str(folder / "motions.index"))
    assert space.demo_of_environment().clip("clip3") is not None
    write_space(demo, folder)  # again, over the old one


def test_a_folder_of_something_else_is_left_alone(demo, tmp_path):
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="--export"):
        write_space(demo, tmp_path)


@pytest.fixture(scope="module")
def address(demo):
    app = space.server(demo)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _, url, _ = app.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
    yield url
    app.get_blocks().close(verbose=False)


def post(url, content):
    """Status and JSON of the answer."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


FILE = {"path": "https://example.org/motion.bvh", "url": "https://example.org/x", "meta": {"_type": "gradio.FileData"}}
BY_URL = [
    ("call/search", {"data": [FILE]}),
    ("call/search", {"data": ["a person kicks", [[FILE]]]}),
    ("call/v2/search", {"text": FILE}),
    ("run/search", {"data": [FILE]}),
    ("api/search/", {"data": [FILE]}),
    ("queue/join", {"data": [FILE], "fn_index": 0, "session_hash": "x"}),
    ("queue/join", {"data": ["kicks"], "fn_index": 0, "session_hash": "x", "event_data": FILE}),
]


@pytest.mark.parametrize(("path", "content"), BY_URL)
def test_a_file_given_as_a_url_is_not_fetched(address, path, content, monkeypatch):
    from gradio import processing_utils

    fetched = []

    async def fetch(url, *_):
        fetched.append(url)
        raise ValueError("fetched")

    for name in ("async_ssrf_protected_download", "async_ssrf_protected_get"):
        monkeypatch.setattr(processing_utils, name, fetch)
    status, reply = post(f"{address}gradio_api/{path}", content)
    time.sleep(0.2)  # the queue works behind the answer
    assert status == 400 and "api/upload" in reply["error"] and fetched == []


@pytest.mark.parametrize("path", ["file=https://example.org/x", "file=/etc/passwd", "proxy=https://example.org/x"])
def test_files_and_addresses_are_not_served(address, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}gradio_api/{path}", timeout=60)


def test_a_client_of_gradio_still_searches(address):
    status, reply = post(f"{address}gradio_api/call/search", {"data": ["a person kicks", "", "", 2]})
    assert status == 200
    with urllib.request.urlopen(f"{address}gradio_api/call/search/{reply['event_id']}", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    assert lines[0] == "event: complete" and len(json.loads(lines[1].removeprefix("data: "))[0]) == 2


def test_sixty_at_once_are_answered_and_few_uploads_are_in_memory(address, demo, bodies, tmp_path, monkeypatch):
    working, most, guard = [], [], threading.Lock()

    def upload(name, content, fps=None):
        with guard:
            working.append(name)
            most.append(len(working))
        time.sleep(0.02)
        with guard:
            working.remove(name)
        return {"key": name, "size": len(content)}

    monkeypatch.setattr(demo, "upload", upload)
    asked = [(f"api/upload?name={number}.npy", b"0" * 1000) for number in range(30)]
    asked += [("api/search", {"text": "a person kicks"})] * 30
    with ThreadPoolExecutor(60) as pool:
        replies = list(pool.map(lambda one: post(address + one[0], one[1]), asked))
    assert {status for status, _ in replies} == {200} and max(most) <= space.UPLOADS_AT_ONCE
    assert [reply["size"] for _, reply in replies[:30]] == [1000] * 30


def test_an_upload_that_finds_no_place_is_told_to_come_back(demo, monkeypatch):
    monkeypatch.setattr(space, "UPLOAD_WAIT", 0.1)
    begun, end = threading.Event(), threading.Event()

    def upload(*_):
        begun.set()
        end.wait(60)
        return {}

    monkeypatch.setattr(demo, "upload", upload)
    monkeypatch.setattr(space, "UPLOADS_AT_ONCE", 1)
    from starlette.testclient import TestClient

    alone = TestClient(space.server(demo))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(alone.post, "/api/upload?name=a.npy", content=b"0")
        assert begun.wait(60)
        reply = alone.post("/api/upload?name=b.npy", content=b"0")
        end.set()
        assert first.result().status_code == 200
    assert reply.status_code == 503 and "try again" in reply.json()["error"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright (extra `test`) is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: `apt-get install chromium`")
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser, address):
    """A page whose console must stay silent, and which asks nobody but the demo."""
    opened = browser.new_page(viewport={"width": 1400, "height": 1000})
    opened.set_default_timeout(SECONDS)
    faults = []
    opened.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("requestfailed", lambda request: faults.append(request.url))
    opened.on(
        "request", lambda request: None if request.url.startswith((address, "data:")) else faults.append(request.url)
    )
    opened.goto(address)
    yield opened
    opened.close()
    assert faults == []


def body(page):
    """What the canvas shows: how many pixels have a colour of their own (left, right, heat)."""
    return page.evaluate(
        """() => {
            const canvas = document.querySelector("#viewer canvas");
            const copy = new OffscreenCanvas(canvas.width, canvas.height);
            const pen = copy.getContext("2d", { willReadFrequently: true });
            pen.drawImage(canvas, 0, 0);
            const { data } = pen.getImageData(0, 0, copy.width, copy.height);
            const style = getComputedStyle(canvas);
            const count = (name) => {
                const [r, g, b] = style.getPropertyValue(name).match(/[0-9a-f]{2}/gi).map((hex) => parseInt(hex, 16));
                let found = 0;
                for (let at = 0; at < data.length; at += 4) {
                    found += Math.hypot(data[at] - r, data[at + 1] - g, data[at + 2] - b) < 60 && data[at + 3] > 200;
                }
                return found;
            };
            return { left: count("--lm-left"), right: count("--lm-right"), heat: count("--lm-heat") };
        }"""
    )


def test_a_visitor_searches_watches_and_steers(page, tmp_path, bodies):
    page.fill("#text", "a person kicks with the left leg")
    page.click("#search button[type=submit]")
    page.wait_for_selector(".hit >> nth=3")
    page.wait_for_selector(".lm-words .lm-row")
    assert page.locator(".hit .lm-viewer canvas").count() == 4
    page.wait_for_function("document.querySelector('#viewer canvas').width > 300")
    page.wait_for_timeout(300)
    still = body(page)
    assert still["left"] > 200 and still["right"] > 200 and not still["heat"]

    frame = "Number(document.querySelector('#viewer .lm-scrub').value)"
    assert page.evaluate(frame) == 0
    page.click("#viewer .lm-play")
    page.wait_for_function(f"{frame} > 5")
    page.click("#viewer .lm-play")
    stopped = page.evaluate(frame)
    page.wait_for_timeout(200)
    assert page.evaluate(frame) == stopped

    page.click(".lm-words .lm-word:enabled >> nth=0")
    page.wait_for_selector(".lm-timeline .lm-chosen + .lm-part")
    page.wait_for_timeout(200)
    word = page.get_attribute(".lm-word[aria-pressed=true]", "data-word")
    assert page.locator(".lm-timeline .lm-chosen .lm-word").inner_text() == word
    lit = body(page)
    assert lit["heat"] > 100 and not lit["left"] and not lit["right"]

    box = page.locator("#viewer canvas").bounding_box()
    before = page.evaluate("document.querySelector('#viewer canvas').toDataURL()")
    page.mouse.move(box["x"] + 200, box["y"] + 150)
    page.mouse.down()
    page.mouse.move(box["x"] + 320, box["y"] + 170, steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    assert page.evaluate("document.querySelector('#viewer canvas').toDataURL()") != before

    page.fill("#word", word)
    page.click("#adder .must")
    page.wait_for_selector(f".chip.must[data-word='{word}']")
    page.fill("#word", "kickss")
    page.click("#adder .not")
    page.wait_for_selector("#message:not([hidden])")
    assert "kicks" in page.locator("#message button").all_inner_texts()

    np.save(tmp_path / "own.npy", bodies[1])
    page.set_input_files("#file", tmp_path / "own.npy")
    page.wait_for_selector("#example:not([hidden])")
    page.wait_for_function("document.querySelector('#title').textContent === 'own.npy'")
    assert "own.npy" in page.inner_text("#example") and page.inner_text("#facts").startswith("your motion")
    page.wait_for_selector(".lm-words .lm-shared")

    (tmp_path / "broken.bvh").write_text("HIERARCHY")
    page.set_input_files("#file", tmp_path / "broken.bvh")
    page.wait_for_selector("#message:has-text('broken.bvh')")


def test_the_page_fits_a_phone_and_goes_dark(browser, address):
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.set_default_timeout(SECONDS)
    page.goto(address)
    page.wait_for_selector(".hit")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    colors = [page.evaluate("getComputedStyle(document.body).backgroundColor")]
    page.click("#theme")
    colors.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    dark, light = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
    assert dark < 150 and light > 600
    page.close()
