"""A real headless Chromium for the tests of the page, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
PATIENCE_S = 60.0


class Browser:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "DOM", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call the protocol; note what the page complains of meanwhile."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(message["params"])[:500])
            if message.get("method") == "Log.entryAdded" and "Security Policy" in message["params"]["entry"]["text"]:
                self.complaints.append(message["params"]["entry"]["text"])
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def open(self, url: str) -> None:
        """Open a page and wait until its script has asked the server for everything."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && document.title.includes('·')")

    def run(self, expression: str) -> Any:
        """The value of an expression; a promise's when it is settled."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression holds, looking once a frame."""
        self.run(
            f"new Promise((done, fail) => {{ const end = performance.now() + {PATIENCE_S * 1000};"
            f" const look = () => {{ if ({condition}) done(); else if (performance.now() > end)"
            f" fail(new Error({json.dumps(condition)})); else setTimeout(look, 15); }}; look(); }})"
        )

    def choose(self, selector: str, *paths: Path) -> None:
        """Give files to a file input, as a person does who chooses them."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def press(self, key: str, times: int = 1) -> None:
        """Press a key."""
        text = {"Enter": "\r"}.get(key, "")
        for _ in range(times):
            self.call(
                "Input.dispatchKeyEvent",
                type="keyDown",
                key=key,
                code=key,
                text=text,
                windowsVirtualKeyCode=13 if text else 9,
            )
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Give the tab the size of a screen."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def picture(self, path: Path) -> None:
        """Save what the whole page looks like."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a browser's DevTools."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is installed")
    folder = tmp_path_factory.mktemp("chromium")
    command = [program, "--no-sandbox", "--headless", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    with subprocess.Popen(
        [*command, "--disable-gpu", "--remote-allow-origins=*", "about:blank"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("DevTools listening on "):
                yield line.split()[-1]
                break
        process.kill()


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    """A fresh tab; the page in it must not have complained at the end."""
    websocket = pytest.importorskip("websocket", reason="pip install websocket-client")
    import httpx

    address = chromium.split("/devtools/")[0].replace("ws://", "http://")
    tab = httpx.put(f"{address}/json/new?about:blank", trust_env=False).json()
    socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=PATIENCE_S, suppress_origin=True)
    made = Browser(socket)
    yield made
    socket.close()
    httpx.get(f"{address}/json/close/{tab['id']}", trust_env=False)
    assert made.complaints == []
