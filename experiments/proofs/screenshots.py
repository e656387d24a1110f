r"""Take screenshots of a run's report in headless Chromium: desktop, phone and dark mode.

    python -m experiments.proofs.screenshots --folder=out --output_dir=docs/images

Needs selenium, Chromium and its driver (Debian: chromium, chromium-driver).
"""

import base64
import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from absl import flags

from isnas_jax import report
from isnas_jax.io import records

from ..main import FLAGS, run_script

# Width and height in CSS pixels, whether the device is mobile, color scheme.
VIEWS = {
    "desktop": (1100, 1500, False, "light"),
    "phone": (375, 1500, True, "light"),
    "dark": (1100, 1500, False, "dark"),
}


@contextlib.contextmanager
def browser() -> Iterator[Any]:
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


def define_flags() -> None:
    """Define the flags of this script."""
    flags.DEFINE_string("folder", "out", "Output folder of a run.")
    flags.DEFINE_string("output_dir", "docs/images", "Folder for the screenshots.")
    flags.DEFINE_string("name", "report", "Prefix of the file names.")


def main() -> None:
    """Open the report in every view and write a screenshot."""
    page = pathlib.Path(FLAGS.folder) / report.PAGE
    with browser() as driver:
        for view in VIEWS:
            open_page(driver, page, view)
            screenshot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
            path = pathlib.Path(FLAGS.output_dir) / f"{FLAGS.name}_{view}.png"
            records.write_bytes(path, base64.b64decode(screenshot["data"]))
            print(path)


if __name__ == "__main__":
    run_script(main, define_flags)
