"""`scripts/console-screenshots`: a stack with something on it, and the pictures of its console in `docs/console/`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from scripts.devstack.process import ROOT
from scripts.devstack.stack import Stack

TARGET: Final = ROOT / "docs" / "console"
FILM: Final = "desk-17.remote-support.2026-11-26"
GAPS: Final = "desk-23.kiosk"
_WIDE: Final = {"width": 1280, "height": 860}
_PHONE: Final = {"width": 390, "height": 844}
_SETTLE_MS: Final = 1500


def main() -> int:
    """Make them all anew; the exit status."""
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lucid-screenshots-") as folder:
        stack = Stack(Path(folder) / "stack")
        stack.start()
        try:
            _fill(stack, Path(folder))
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
                _pictures(browser, stack)
                browser.close()
        finally:
            stack.stop()
    return 0


def _fill(stack: Stack, folder: Path) -> None:
    """Sessions in every state."""
    film = folder / "film.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=640x360:rate=15", "-t", "4", "-pix_fmt", "yuv420p"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-movflags", "frag_keyframe+empty_moov+default_base_moof"]
    subprocess.run(["ffmpeg", "-v", "error", *source, *coding, "-f", "mp4", str(film)], check=True)
    with httpx.Client(base_url=stack.processor_url, timeout=60, trust_env=False) as http:

        def ask(method: str, path: str, role: str = "record", **options: object) -> None:
            headers = {"Authorization": f"Bearer {stack.tokens[role]}"}
            url = f"/api/v1/sessions/{path}"
            http.request(method, url, headers=headers, **options).raise_for_status()  # type: ignore[arg-type]

        def record(name: str, data: bytes, size: int, missing: tuple[int, ...] = (), *, seal: bool = True) -> None:
            ask("PUT", name, json={"metadata": {"host": name.partition(".")[0], "application": "<remote support>"}})
            for index, start in enumerate(range(0, len(data), size)):
                if index not in missing:
                    ask("PUT", f"{name}/chunks/{index}", content=data[start : start + size])
            if seal:
                ask("POST", f"{name}/seal", json={})

        text = (ROOT / "README.md").read_bytes()
        for number in range(9):
            record(f"office-{number:02d}.shift", text * (number + 2) + os.urandom(900 * number), 8_000)
        record(FILM, film.read_bytes(), 6_000)
        record("desk-31.withdrawn", text, 4_000)
        ask("DELETE", "desk-31.withdrawn", "admin")
        record("desk-30.dispute", text, 4_000)
        record(GAPS, text * 6, 6_000, (4, 5, 6, 11), seal=False)
        record("desk-24.workshop", text, 3_000, seal=False)
    held = f"{stack.storage_url}/api/v1/sessions/desk-30.dispute/hold"
    headers = {"Authorization": f"Bearer {stack.tokens['admin']}"}
    httpx.put(held, json={"held": True}, headers=headers, trust_env=False).raise_for_status()


def _open(browser: Browser, stack: Stack, view: str, size: dict[str, int], scheme: str = "light") -> Page:
    mobile = size is _PHONE
    context = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=2 if mobile else 1,
        is_mobile=mobile,
        locale="en-GB",
    )
    page = context.new_page()
    page.goto(f"{stack.storage_url}/console#/{view}")
    page.get_by_label("Token", exact=True).fill((stack.folder / "secrets" / "operator-token").read_text().strip())
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()
    page.wait_for_timeout(_SETTLE_MS)
    return page


def _pictures(browser: Browser, stack: Stack) -> None:
    page = _open(browser, stack, f"session/{FILM}", _WIDE)
    page.get_by_text("Anchored").first.wait_for(timeout=60_000)
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("() => document.querySelector('video')?.currentTime > 1")
    page.evaluate("() => document.querySelector('video').pause()")
    page.screenshot(path=TARGET / "session.png", full_page=True)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Verify here").click()
    verifier = opened.value
    verifier.get_by_label("RPC endpoint").fill(stack.rpc_url)
    verifier.get_by_label("Publisher").fill(stack.publisher)
    verifier.get_by_role("button", name="Verify").click()
    verifier.locator(".verdict").wait_for()
    verifier.screenshot(path=TARGET / "verify.png", full_page=True)
    _open(browser, stack, "sessions", _WIDE).screenshot(path=TARGET / "sessions.png")
    _open(browser, stack, "sessions", _PHONE).screenshot(path=TARGET / "phone.png")
    _open(browser, stack, f"session/{GAPS}", _WIDE, "dark").screenshot(path=TARGET / "dark.png", full_page=True)
    page = _open(browser, stack, "activity", _WIDE)
    page.wait_for_timeout(4 * _SETTLE_MS)
    page.screenshot(path=TARGET / "activity.png")


if __name__ == "__main__":
    sys.exit(main())
