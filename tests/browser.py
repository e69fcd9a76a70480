"""Headless chromium for the tests that look at pages."""

import contextlib
import shutil

import pytest

BROWSERS = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
]
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]

needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="needs the program chromium (Debian: apt-get install chromium)"
)


@contextlib.contextmanager
def chromium():
    """A browser; each page of `browser.new_context()` has a profile of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=QUIET)
        yield browser
        browser.close()
