"""A headless Chromium on a pipe: what a page writes to its console, what it asks the network for, how it is laid out.

The browser speaks its DevTools protocol over two pipes, JSON messages that end with a zero byte: no port is opened.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 60.0


class Page:
    """One page of a browser; `errors` and `requests` fill while it is used."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest = read, write, b""
        self._last = 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol and wait for its answer."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        wanted = self._last
        return self._until(lambda answer: answer.get("id") == wanted).get("result", {})

    def open(self, path: Path, *, width: int, height: int = 900, scheme: str = "light") -> None:
        """Open a file as a reader would, and let its script run."""
        self.errors.clear()
        self.requests.clear()
        self._loaded = False
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=path.resolve().as_uri())
        if not self._loaded:
            self._until(lambda message: message.get("method") == "Page.loadEventFired")
        self.settle()

    def settle(self, seconds: float = 0.3) -> None:
        """Take in what arrives within so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for message in self._messages(left):
                self._take(message)

    def value(self, script: str) -> Any:
        """What a script of ours evaluates to in the page."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = False, clip: dict[str, float] | None = None) -> None:
        """A picture of what is seen, or of the whole page."""
        said: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole or clip is not None}
        if clip is not None:
            said["clip"] = {"scale": 1, **clip}
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", **said)["data"]))

    def close(self) -> None:
        """Tell the browser to end, with all its helpers."""
        os.write(self._write, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")

    def left_machine(self) -> list[str]:
        """Requests for anything but files and what the page holds itself."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "about:", "blob:"))]

    def _until(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = None
            for message in self._messages(end - time.monotonic()):
                self._take(message)
                found = message if is_it(message) else found
            if found is not None:
                return found
        raise TimeoutError("the browser does not answer")

    def _messages(self, seconds: float) -> Iterator[dict[str, Any]]:
        ready, _, _ = select([self._read], [], [], max(0.0, seconds))
        if not ready:
            return
        *whole, self._rest = (self._rest + os.read(self._read, 1 << 20)).split(b"\0")
        yield from (json.loads(message) for message in whole)

    def _take(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.errors.append(str(told["exceptionDetails"].get("text")))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.errors.append(str([argument.get("value") for argument in told["args"]]))
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.errors.append(told["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with a profile of its own, ended at the end."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # The shell puts the pipes where the browser looks for them: it reads from 3 and writes to 4.
    command = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$0" "$@"'
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"),
        *(
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ),
        f"--user-data-dir={profile}",
    ]
    process = subprocess.Popen(
        ["/bin/bash", "-c", command, str(CHROMIUM), *options, "about:blank"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        page = Page(ours_in, ours_out)
        yield page
        page.close()
        process.wait(PATIENCE)
    finally:
        process.kill()  # what has ended by itself does not mind
        process.wait()
        os.close(ours_in)
        os.close(ours_out)
