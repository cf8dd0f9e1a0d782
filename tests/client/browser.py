"""A headless Chromium and its pages, driven over the DevTools protocol: what a person does to a page and sees of it.

The browser is whatever Chromium the machine has; nothing is fetched. Where there is none, `chromium_or_skip` says so
loudly, and fails instead where `SKERRY_BROWSER` is `required`.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
ANSWER_SECONDS_MAX = 60
STOP_SECONDS_MAX = 20
ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}

# Resolves once the condition holds. What it depends on is the document, so it is looked at when the document changes.
UNTIL = """new Promise((resolve) => {
  const look = () => { const found = (%s); if (found) { observer.disconnect(); resolve(found); } };
  const observer = new MutationObserver(look);
  observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
  look();
})"""


def not_run(reason: str) -> NoReturn:
    """Ends the test as one that did not run: skipped with what to do, or failed where it must run."""
    said = f"THE BROWSER'S TESTS DID NOT RUN: {reason} Then: tools/test tests/client/test_browser.py"
    if os.environ.get("SKERRY_BROWSER") == "required":
        pytest.fail(said)
    pytest.skip(said)


def chromium_or_skip() -> str:
    """The Chromium to drive: SKERRY_CHROMIUM, or the first on the PATH."""
    named = os.environ.get("SKERRY_CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        not_run(
            f"{named} is no program. Name a Chromium in SKERRY_CHROMIUM."
            if named
            else "no Chromium is found. Install one (Debian: apt-get install chromium) or name it in SKERRY_CHROMIUM."
        )
    return found


class Browser:
    """A running Chromium. Limits: one thread at a time."""

    def __init__(self, executable: str, folder: Path) -> None:
        flags = [
            "--headless=new",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",  # containers give it little
            # A page that is not in front is still looked at by somebody.
            "--disable-background-timer-throttling",
            "--disable-backgrounding-occluded-windows",
            "--disable-renderer-backgrounding",
        ]
        if os.getuid() == 0:  # its sandbox does not start for root; the pages are this repository's own
            flags.append("--no-sandbox")
        self._process = subprocess.Popen(
            [executable, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            self._connected = contextlib.ExitStack()
            self._socket = self._connected.enter_context(connect(self._address(), max_size=None, proxy=None))
        except BaseException:
            self._process.kill()
            self._process.communicate()
            raise
        self._ids = itertools.count(1)
        self._events: list[dict[str, Any]] = []

    def _address(self) -> str:
        assert self._process.stderr is not None
        said: list[str] = []
        for line in self._process.stderr:
            said.append(line)
            if (found := re.search(r"DevTools listening on (ws://\S+)", line)) is not None:
                # What it says later must not fill the pipe.
                self._drain = threading.Thread(target=self._process.stderr.read)
                self._drain.start()
                return found[1]
        raise AssertionError(f"Chromium ended: {''.join(said)}")

    def close(self) -> None:
        try:
            self.command("Browser.close")
            self._connected.close()
            self._process.wait(STOP_SECONDS_MAX)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._drain.join()
            assert self._process.stderr is not None
            self._process.stderr.close()

    def command(self, method: str, session: str | None = None, **params: Any) -> Any:
        """The result of one command. Raises: AssertionError with what the browser said; TimeoutError."""
        number = next(self._ids)
        sent = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(sent if session is None else {**sent, "sessionId": session}))
        while (message := json.loads(self._socket.recv(timeout=ANSWER_SECONDS_MAX))).get("id") != number:
            self._events.append(message)
        assert "error" not in message, (method, message["error"])
        return message["result"]

    def events(self, method: str, session: str) -> list[dict[str, Any]]:
        """What has been told of a page so far, in order."""
        return [e["params"] for e in self._events if e.get("method") == method and e.get("sessionId") == session]

    def open(self, url: str) -> "Page":
        """A page of its own window and its own storage, as another person's is."""
        context = self.command("Target.createBrowserContext")["browserContextId"]
        target = self.command("Target.createTarget", url="about:blank", browserContextId=context, newWindow=True)
        return Page(self, target["targetId"], url)


class Page:
    """One page and what a person can do there."""

    def __init__(self, browser: Browser, target: str, url: str) -> None:
        self._browser = browser
        self._target = target
        self._session = browser.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.command("Runtime.enable")
        self.command("Page.enable")
        self.command("Network.enable")
        self.command("Page.navigate", url=url)

    def command(self, method: str, **params: Any) -> Any:
        return self._browser.command(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, awaited."""
        answer = self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def until(self, condition: str) -> Any:
        """Waits for an expression over the document to hold, and gives its value."""
        try:
            return self.evaluate(UNTIL % condition)
        except TimeoutError:
            shown = self.evaluate("document.body.innerText")
            raise AssertionError(f"still not {condition}; the page shows:\n{shown}\n{self.exceptions()}") from None

    def type(self, selector: str, text: str) -> None:
        """Replaces what a field holds, as typing does."""
        self.evaluate(f"(() => {{ const f = document.querySelector({selector!r}); f.focus(); f.select(); }})()")
        if text:
            self.command("Input.insertText", text=text)
        else:
            key = {"key": "Backspace", "code": "Backspace", "windowsVirtualKeyCode": 8}
            self.command("Input.dispatchKeyEvent", type="keyDown", **key)
            self.command("Input.dispatchKeyEvent", type="keyUp", **key)

    def press_enter(self) -> None:
        self.command("Input.dispatchKeyEvent", type="keyDown", **ENTER)
        self.command("Input.dispatchKeyEvent", type="keyUp", **ENTER)

    def go_offline(self) -> None:
        """Holds back what the page sends and would receive, on open sockets too, as where there is no reception."""
        self._conditions(offline=True)

    def go_online(self) -> None:
        self._conditions(offline=False)

    def _conditions(self, *, offline: bool) -> None:
        self.command(
            "Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    def exceptions(self) -> list[Any]:
        """What nobody caught on the page, and what it wrote as an error; but not what `convex` writes of refusals."""
        thrown = [event["exceptionDetails"] for event in self._browser.events("Runtime.exceptionThrown", self._session)]
        logged = self._browser.events("Runtime.consoleAPICalled", self._session)
        errors = [event["args"] for event in logged if event["type"] == "error"]
        return thrown + [words for words in errors if not str(words[0].get("value")).startswith("[CONVEX ")]

    def close(self) -> None:
        self._browser.command("Target.closeTarget", targetId=self._target)
