"""Open a report, or every page of the site, in a headless browser.

Looks for messages on the console, requests but for the file itself, pages wider than the screen; in a report for tables
whose order after a click differs from that of Python, and links that save nothing; in a site for pictures that are not
there. Saves pictures of whole pages at two widths, light and dark. Needs Selenium (`pip install selenium`), Chromium or
Chrome, and its chromedriver.

    python benchmarks/report_in_browser.py report.html --out pictures
    mkdocs build --site-dir public && python benchmarks/report_in_browser.py public --out pictures
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote_to_bytes

WIDTHS = {"phone": 390, "desk": 1440}
THEMES = ("light", "dark")
SLICE = 6000
"""Pixels of height of a picture: a browser draws no taller ones."""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def missing() -> str:
    """Return what is not installed, and how to get it; empty where everything is there."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "needs Selenium: pip install selenium"
    if not any(map(shutil.which, _BROWSERS)) or not shutil.which("chromedriver"):
        return "needs Chromium or Chrome and its chromedriver on the PATH"
    return ""


@contextmanager
def browser(downloads: Path) -> Iterator[Any]:
    """Start a headless browser that saves into a folder; close it after the block."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, _BROWSERS)))
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={downloads / 'profile'}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        yield driver
    finally:
        driver.quit()


def set_screen(driver: Any, width: int, theme: str) -> None:
    """Give the page a width and a theme."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    # Without motion, what was scrolled to is there at once.
    features = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}
    named = [{"name": name, "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})


def console_problems(driver: Any) -> list[str]:
    """Return warnings and errors on the console."""
    return [f"console: {item['message']}" for item in driver.get_log("browser") if item["level"] != "INFO"]


def request_problems(driver: Any, own: str) -> list[str]:
    """Return requests for anything but what lies at this place, what it holds, and what the browser asks of itself."""
    asked = []
    for item in driver.get_log("performance"):
        message = json.loads(item["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    return [f"request: {url}" for url in asked if not url.startswith((own, "data:", "chrome:"))]


def number_in(text: str) -> float | None:
    """Return the number that a cell begins with; a bound like <0.001 lies just below its number."""
    found = re.match(r"[\s\[(<>]*([-\u2212+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)", text, re.IGNORECASE)
    if not found:
        return None
    value = float(found[1].replace(",", "").replace("\u2212", "-"))
    return value - abs(value) * 1e-6 if text.strip().startswith("<") else value


def expected_order(cells: Sequence[str], words: bool) -> list[int]:
    """Return the rows as the first click on a head puts them: numbers from the largest, names from A."""
    numbers = [number_in(cell) for cell in cells]
    if words or all(value is None for value in numbers):
        return sorted(range(len(cells)), key=lambda row: _name_key(cells[row]))
    there = sorted(
        (row for row, value in enumerate(numbers) if value is not None), key=lambda row: -(numbers[row] or 0)
    )
    return there + [row for row, value in enumerate(numbers) if value is None]


def _name_key(text: str) -> list[tuple[int, float, str]]:
    parts = re.findall(r"\d+|\D+", unicodedata.normalize("NFKD", text.strip()).lower())
    # Digits stand before letters in Unicode, and so does the key of a number.
    return [(0, float(part), "") if part.isdecimal() else (1, 0.0, part) for part in parts]


def table_problems(driver: Any) -> list[str]:
    """Click every head of every table once and compare the order of the rows with Python's; put the rows back."""
    read = "return [...arguments[0].tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent))"
    problems = []
    for table in driver.find_elements("css selector", "table.sorts"):
        before = driver.execute_script(read, table)
        title = driver.execute_script("return arguments[0].caption.textContent.trim()", table)
        for column, head in enumerate(table.find_elements("css selector", "thead th")):
            words = "words" in (head.get_attribute("class") or "")
            driver.execute_script("arguments[0].querySelector('button').click()", head)
            after = driver.execute_script(read, table)
            expected = [before[row] for row in expected_order([row[column] for row in before], words)]
            # A group's column is sorted by its names alone; rows of one name keep their order, as Python's do.
            if after != expected:
                problems.append(
                    f"table {title!r}: column {column + 1} is not in order: {[row[column] for row in after]}"
                )
            said = head.get_attribute("aria-sort")
            if said not in ("ascending", "descending"):
                problems.append(f"table {title!r}: column {column + 1} says that it is sorted {said}")
            driver.execute_script("const b = arguments[0].querySelector('button'); b.click(); b.click()", head)
            if driver.execute_script(read, table) != before:
                problems.append(f"table {title!r}: two more clicks on column {column + 1} do not bring the rows back")
    return problems


def link_problems(driver: Any, downloads: Path) -> list[str]:
    """Return links that hold nothing; one of each kind is clicked, and what it saves compared with what it holds."""
    problems, clicked = [], set()
    for link in driver.find_elements("css selector", "a[download]"):
        name, uri = (driver.execute_script(f"return arguments[0].{what}", link) for what in ("download", "href"))
        data = decoded(uri)
        if not data:
            problems.append(f"link {name}: holds nothing")
        ending = Path(name).suffix
        if data and ending not in clicked:
            clicked.add(ending)
            driver.execute_script("arguments[0].click()", link)
            if _saved(downloads / name) != data:
                problems.append(f"link {name}: what it saves is not what it holds")
    return problems if clicked else [*problems, "there is no link that saves anything"]


def decoded(uri: str) -> bytes:
    """Return what a data URI holds; nothing where it is none."""
    head, comma, body = uri.partition(",")
    if not head.startswith("data:") or not comma:
        return b""
    return base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)


def _saved(path: Path) -> bytes | None:
    for _ in range(50):
        if path.exists():
            return path.read_bytes()
        time.sleep(0.1)
    return None


def width_problems(driver: Any, where: str, screen: int) -> list[str]:
    """Return whether the page is wider than the screen."""
    # A phone's window.innerWidth grows with the page.
    wide = driver.execute_script("return document.documentElement.scrollWidth")
    return [f"{where}: the page is {wide} pixels wide"] if wide > screen else []


def save_pictures(driver: Any, folder: Path, name: str) -> list[Path]:
    """Save the whole page, from the top, in slices that a browser can draw."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = driver.execute_script("return [window.innerWidth, document.documentElement.scrollHeight]")
    written = []
    for place, top in enumerate(range(0, height, SLICE), start=1):
        clip = {"x": 0, "y": top, "width": width, "height": min(SLICE, height - top), "scale": 1}
        taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        written.append(folder / f"{name}-{place}.png")
        written[-1].write_bytes(base64.b64decode(taken["data"]))
    return written


def check_report(page: Path, pictures: Path | None = None) -> list[str]:
    """Return everything that is wrong with a report in a browser.

    Args:
        page: The report.
        pictures: Where pictures are saved; none by default.
    """
    problems = []
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as driver:
        for device, width in WIDTHS.items():
            for theme in THEMES:
                set_screen(driver, width, theme)
                driver.get(page.resolve().as_uri())
                problems += width_problems(driver, f"{device}, {theme}", width)
                if pictures is not None:
                    save_pictures(driver, pictures, f"{device}-{theme}")
        problems += table_problems(driver)
        problems += link_problems(driver, Path(folder))
        problems += console_problems(driver)
        problems += request_problems(driver, page.resolve().as_uri())
    return problems


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def check_site(folder: Path, pictures: Path | None = None) -> list[str]:
    """Return everything that is wrong with the pages of a site in a browser, each at two widths."""
    problems = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    own = f"http://127.0.0.1:{server.server_port}/"
    broken = "return [...document.images].filter(one => !one.naturalWidth).map(one => one.src)"
    with tempfile.TemporaryDirectory() as downloads, browser(Path(downloads)) as driver:
        for page in sorted(folder.rglob("index.html")):
            place = page.parent.relative_to(folder).as_posix()
            for device, width in WIDTHS.items():
                set_screen(driver, width, THEMES[0])
                driver.get(f"{own}{place}/")
                found = width_problems(driver, device, width) + console_problems(driver)
                found += [f"picture: {picture}" for picture in driver.execute_script(broken)]
                problems += [f"{place}: {problem}" for problem in found + request_problems(driver, own)]
                if pictures is not None:
                    save_pictures(driver, pictures, f"{place.replace('/', '-')}-{device}")
    server.shutdown()
    return problems


def main() -> int:
    """Check what is named, and say what is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="the file of a report, or the folder of a site")
    parser.add_argument("--out", type=Path, help="folder for pictures")
    given = parser.parse_args()
    if lacking := missing():
        print(f"report_in_browser: {lacking}", file=sys.stderr)
        return 2
    if not given.page.exists():
        print(f"report_in_browser: {given.page}: no such file or folder", file=sys.stderr)
        return 2
    problems = (check_site if given.page.is_dir() else check_report)(given.page, given.out)
    print("\n".join(problems) or "nothing is wrong")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
