r"""Pictures of a run's page in headless Chromium: desktop, phone, dark.

    python -m experiments.screenshots --folder=out --output_dir=docs/images

Needs selenium, Chromium and its driver (Debian: chromium, chromium-driver).
"""

import base64
import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from isnas_jax import report
from isnas_jax.io import records

from . import cli

FLAGS = flags.FLAGS

flags.DEFINE_string("folder", "out", "Folder that a run left.")
flags.DEFINE_string("output_dir", "docs/images", "Folder for the pictures.")
flags.DEFINE_string("name", "report", "What the pictures' names begin with.")

# Width and height in CSS pixels, whether it is a phone, the color scheme.
VIEWS = {
    "desktop": (1100, 1500, False, "light"),
    "phone": (375, 1500, True, "light"),
    "dark": (1100, 1500, False, "dark"),
}


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Opens a headless Chromium; FileNotFoundError where there is none."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    driver, binary = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not binary:
        raise FileNotFoundError("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield opened
    finally:
        opened.quit()


def look(opened: Any, page: pathlib.Path, view: str) -> None:
    """Opens a page as one of `VIEWS` shows it."""
    width, height, mobile, scheme = VIEWS[view]
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    opened.get(page.resolve().as_uri())


def main(_: Sequence[str]) -> None:
    """The story: open the page in every view, write what is seen."""
    page = pathlib.Path(FLAGS.folder) / report.PAGE
    with browser() as opened:
        for view in VIEWS:
            look(opened, page, view)
            seen = opened.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
            path = pathlib.Path(FLAGS.output_dir) / f"{FLAGS.name}_{view}.png"
            records.write_bytes(path, base64.b64decode(seen["data"]))
            print(path)


if __name__ == "__main__":
    cli.run(main)
