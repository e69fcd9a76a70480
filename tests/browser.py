"""Headless chromium for the tests that look at pages. Import the fixture `browser`: one for each file."""

import contextlib
import shutil

import pytest

PATIENCE = 600_000  # milliseconds: a hang ends, a busy machine may take its time
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
BROWSERS += ["/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"]
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]

REASON = "needs the program chromium (Debian: apt-get install chromium)"
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason=REASON)


@contextlib.contextmanager
def chromium():
    """A browser; each page of `browser.new_context()` has a profile of its own.

    Its event loop runs in this thread until the block ends, and asyncio.run() fails there: not for a session.
    """
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started
