"""The page in a real browser: choose, take, drop, paste; what it shows, tells and does when things go wrong.

`ZOO_SCREENSHOTS=FOLDER pytest tests/serve/web/page` keeps a picture of each state.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from export.contract import Contract
from zoo.data.preprocess import crop_box
from zoo.model.spec import Preprocessing

Start = Callable[..., Any]
ANSWERED = "document.querySelectorAll('.answer .top:not([hidden])').length"


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.jpg"
    ramp = np.linspace(0, 255, 300 * 200, dtype=np.uint8).reshape(200, 300)
    Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=2)).save(path)
    return path


def shoot(browser: Any, name: str) -> None:
    if folder := os.environ.get("ZOO_SCREENSHOTS"):
        browser.picture(Path(folder, f"{name}.png"))


def texts(browser: Any, selector: str) -> list[str]:
    found: list[str] = browser.run(f"[...document.querySelectorAll({selector!r})].map((one) => one.textContent)")
    return found


def test_a_chosen_picture_gets_five_bars_and_a_split(start_server: Start, browser: Any, photograph: Path) -> None:
    running = start_server()
    browser.size(1280, 900)
    browser.open(f"http://127.0.0.1:{running.port}/")
    browser.wait("document.getElementById('state').textContent === 'ready'")
    shoot(browser, "empty")
    browser.choose("#file", photograph)
    browser.wait(f"{ANSWERED} === 1")
    assert texts(browser, ".answer .name") == ["a photo.jpg"]
    assert len(texts(browser, ".answer .bars li")) == 5
    assert "on the server" in texts(browser, ".latency b")[0]
    stages = [text.split()[0] for text in texts(browser, ".legend li")]
    assert stages == ["decode", "queue", "compute", "other"]
    assert "'a photo.jpg'" in texts(browser, "#curl")[0]
    answer = running.post(photograph.read_bytes()).json()
    assert texts(browser, ".answer h2") == [answer["predictions"][0]["class"]]
    assert "a photo.jpg: " in texts(browser, "#spoken")[0]
    shoot(browser, "answer")


def test_the_part_that_the_network_sees_is_drawn(
    start_server: Start, fake: Any, browser: Any, photograph: Path
) -> None:
    preprocessing = Preprocessing(image_size=8, resize="crop", resize_size=10)
    contract = Contract(model="fake", classes=tuple("abcdefghij"), preprocessing=preprocessing)
    running = start_server(fake(contract=contract))
    browser.open(f"http://127.0.0.1:{running.port}/")
    browser.choose("#file", photograph)
    browser.wait("document.querySelector('.seen:not([hidden])')")
    drawn = browser.run(
        "(() => { const a = document.querySelector('.seen').getBoundingClientRect(),"
        " b = document.querySelector('.frame img').getBoundingClientRect();"
        " return [(a.left - b.left) / b.width, (a.top - b.top) / b.height, (a.right - b.left) / b.width,"
        " (a.bottom - b.top) / b.height] })()"
    )
    left, top, right, bottom = crop_box(300, 200, preprocessing)
    assert drawn == pytest.approx([left / 300, top / 200, right / 300, bottom / 200], abs=0.01)
    shoot(browser, "crop")


def test_several_pictures_are_a_grid(start_server: Start, fake: Any, browser: Any, tmp_path: Path) -> None:
    running = start_server()
    paths = []
    for byte in range(1, 8):
        paths.append(tmp_path / f"{byte}.png")
        paths[-1].write_bytes(fake.png(byte))
    browser.size(1280, 900)
    browser.open(f"http://127.0.0.1:{running.port}/")
    browser.choose("#file", *paths)
    browser.wait(f"{ANSWERED} === 7")
    assert sorted(texts(browser, ".answer h2")) == list("bcdefgh")
    columns = browser.run("getComputedStyle(document.getElementById('grid')).gridTemplateColumns.split(' ').length")
    assert columns >= 3
    shoot(browser, "grid")
    browser.run("document.querySelector('.answer .remove').click()")
    assert len(texts(browser, ".answer")) == 6
    browser.run("document.getElementById('clear').click()")
    assert texts(browser, ".answer") == []
    assert browser.run("!document.getElementById('blank').hidden")


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_a_picture_can_be_pasted_and_dropped(start_server: Start, browser: Any, way: str) -> None:
    running = start_server()
    browser.open(f"http://127.0.0.1:{running.port}/")
    event = {
        "paste": "new ClipboardEvent('paste', { clipboardData: data, bubbles: true })",
        "drop": "new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })",
    }[way]
    browser.run(
        "fetch('examples/0.png').then((reply) => reply.blob()).then((blob) => { const data = new DataTransfer();"
        f" data.items.add(new File([blob], 'given.png', {{ type: 'image/png' }})); document.dispatchEvent({event}); }})"
    )
    browser.wait(f"{ANSWERED} === 1")
    assert texts(browser, ".answer .name") == ["given.png"]


def test_examples_are_answered_by_one_press_of_a_key(start_server: Start, browser: Any) -> None:
    running = start_server()
    browser.open(f"http://127.0.0.1:{running.port}/")
    browser.wait("document.querySelectorAll('#thumbs button').length === 2")
    browser.run("document.querySelector('#thumbs button').focus()")
    browser.press("Enter")
    browser.wait(f"{ANSWERED} === 1")
    assert "flower" in texts(browser, ".answer .name")[0]


def test_everything_that_can_be_used_is_reached_by_tab(start_server: Start, browser: Any, photograph: Path) -> None:
    running = start_server()
    browser.open(f"http://127.0.0.1:{running.port}/")
    browser.choose("#file", photograph)
    browser.wait(f"{ANSWERED} === 1")
    reached = set()
    for _ in range(16):
        browser.press("Tab")
        reached.add(browser.run("document.activeElement.id || document.activeElement.className"))
    assert {"skip", "file", "remove", "curl", "copy"} <= reached


def test_a_screen_reader_is_told_names_and_news(start_server: Start, browser: Any, photograph: Path) -> None:
    running = start_server()
    browser.open(f"http://127.0.0.1:{running.port}/")
    browser.choose("#file", photograph)
    browser.wait(f"{ANSWERED} === 1")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    told = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")}
    assert ("article", "a photo.jpg") in told
    assert ("image", "Picture: a photo.jpg") in told
    assert ("button", "Remove this picture") in told
    unnamed = [role for role, name in told if role in ("button", "link", "image", "combobox") and not name]
    assert unnamed == []


def test_what_is_no_picture_is_told_on_its_card(start_server: Start, browser: Any, tmp_path: Path) -> None:
    running = start_server()
    (tmp_path / "notes.txt").write_text("no picture")
    large = tmp_path / "large.png"
    large.write_bytes(bytes(1_000_001))
    browser.open(f"http://127.0.0.1:{running.port}/")
    browser.choose("#file", tmp_path / "notes.txt")
    browser.wait("document.querySelector('.wrong:not([hidden])')")
    assert "picture" in texts(browser, ".wrong strong")[0]
    browser.choose("#file", large)
    browser.wait("document.querySelectorAll('.wrong:not([hidden])').length === 2")
    assert "1.0 MB at most" in texts(browser, ".wrong strong")[0]
    shoot(browser, "error")


def test_pictures_wait_for_a_server_that_is_away(start_server: Start, browser: Any, photograph: Path) -> None:
    running = start_server()
    browser.size(1280, 900)
    browser.open(f"http://127.0.0.1:{running.port}/")
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.call("Network.emulateNetworkConditions", offline=True, **conditions)
    browser.choose("#file", photograph)
    browser.wait("document.getElementById('state').className === 'state away'")
    assert browser.run("!document.getElementById('away').hidden")
    assert texts(browser, ".waiting") == ["Waiting …"]
    shoot(browser, "offline")
    browser.call("Network.emulateNetworkConditions", offline=False, **conditions)
    browser.wait(f"{ANSWERED} === 1")
    assert browser.run("document.getElementById('away').hidden")


def test_the_state_is_the_servers(start_server: Start, fake: Any, browser: Any) -> None:
    runner = fake()
    runner.warm_gate.clear()
    running = start_server(runner, wait_until_warm=False)
    browser.open(f"http://127.0.0.1:{running.port}/")
    browser.wait("document.getElementById('state').textContent.includes('warming up')")
    runner.warm_gate.set()
    browser.wait("document.getElementById('state').textContent === 'ready'")


def test_a_phone_sees_the_camera_first_and_nothing_too_wide(
    start_server: Start, browser: Any, photograph: Path
) -> None:
    running = start_server()
    browser.size(375, 812, phone=True)
    browser.open(f"http://127.0.0.1:{running.port}/")
    shoot(browser, "phone-empty")
    shown = "getComputedStyle(document.getElementById('take')).display !== 'none'"
    assert browser.run(shown)
    camera, choose = (
        browser.run(f"document.getElementById('{name}').getBoundingClientRect().top") for name in ("take", "choose")
    )
    assert camera < choose
    assert browser.run("document.getElementById('camera').getAttribute('capture')") == "environment"
    browser.choose("#camera", photograph)
    browser.wait(f"{ANSWERED} === 1")
    assert browser.run("document.documentElement.scrollWidth") <= 375
    facts, results = (browser.run(f"document.getElementById('{name}').offsetTop") for name in ("facts", "results"))
    assert facts > results
    shoot(browser, "phone")


def test_dark_is_dark(start_server: Start, browser: Any, photograph: Path) -> None:
    running = start_server()
    browser.size(1280, 900)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.open(f"http://127.0.0.1:{running.port}/")
    browser.choose("#file", photograph)
    browser.wait(f"{ANSWERED} === 1")
    red, green, blue = browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(red, green, blue) < 40
    shoot(browser, "dark")


def test_several_labels_are_told_apart(start_server: Start, fake: Any, browser: Any, tmp_path: Path) -> None:
    contract = fake().contract
    running = start_server(fake(contract=replace(contract, thresholds=(0.9,) * 9 + (0.7,))))
    (tmp_path / "3.png").write_bytes(fake.png(3))
    browser.open(f"http://127.0.0.1:{running.port}/")
    browser.choose("#file", tmp_path / "3.png")
    browser.wait(f"{ANSWERED} === 1")
    assert texts(browser, ".answer h2") == ["d, j"]


def test_the_docs_list_every_route(start_server: Start, browser: Any) -> None:
    running = start_server()
    browser.size(375, 812, phone=True)
    browser.open(f"http://127.0.0.1:{running.port}/docs")
    browser.wait("document.querySelectorAll('#routes > section > details').length > 20")
    browser.run("document.querySelector('details').open = true")
    assert "--data-binary @PICTURE.jpg" in texts(browser, "details pre")[0]
    assert browser.run("document.documentElement.scrollWidth") <= 375
    shoot(browser, "docs")
