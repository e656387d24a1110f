"""Open pages in headless Chromium as on a desktop, a phone and in dark mode.

Needs selenium, Chromium and its driver (Debian: chromium, chromium-driver).
"""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

# Width and height in CSS pixels, whether the device is mobile, color scheme.
VIEWS = {
    "desktop": (1100, 1500, False, "light"),
    "phone": (375, 1500, True, "light"),
    "dark": (1100, 1500, False, "dark"),
}


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Open a headless Chromium; FileNotFoundError if it is not installed."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    driver_path, chromium_path = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver_path or not chromium_path:
        raise FileNotFoundError("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium_path
    for argument in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    for argument in ("background-networking", "component-update"):
        options.add_argument(f"--disable-{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(driver: Any, page: pathlib.Path, view: str) -> None:
    """Open a page in the browser with the size and color scheme of a view in `VIEWS`."""
    width, height, mobile, scheme = VIEWS[view]
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get(page.resolve().as_uri())
