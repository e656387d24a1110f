import os
import subprocess
import sys

import numpy as np
import pytest

from isnas_jax import figures


def overlaps(first, second):
    return first.x0 < second.x1 and second.x0 < first.x1 and first.y0 < second.y1


def test_power_spectra_label_does_not_overlap_planes():
    image = np.random.default_rng(0).uniform(size=(32, 48, 3))
    figure = figures.power_spectra({"observed": image, "restored": image, "clean": image})
    figure.canvas.draw()
    *planes, averages = figure.axes
    label = averages.yaxis.label.get_window_extent()
    assert label.width > 0
    for plane in planes:
        assert not overlaps(label, plane.get_window_extent())


def test_comparison_shows_each_image_under_its_title():
    images = {"a": np.zeros((8, 8, 1)), "b": np.ones((4, 4, 3))}
    axes = figures.comparison(images).axes
    assert [axis.get_title() for axis in axes] == ["a", "b"]
    for axis, image in zip(axes, images.values(), strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), image.squeeze())


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_equal_figures_give_equal_files(tmp_path, suffix):
    for name in "ab":
        figure = figures.curves({"loss": np.array([3.0, 2.0, 1.0])}, 1)
        figures.save(figure, tmp_path / f"{name}{suffix}")
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert first == second


def test_use_defaults_ignores_matplotlibrc_and_missing_backend(tmp_path):
    code = (
        "from isnas_jax import figures; figures.use_defaults();"
        "figures.save(figures.comparison({'a': [[[0.5]]]}), pathlib.Path('a.png'))"
    )
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsavefig.facecolor: red\n")
    environment = {**os.environ, "MPLBACKEND": "module://nowhere", "MPLCONFIGDIR": os.devnull}
    subprocess.run(
        [sys.executable, "-c", f"import pathlib; {code}"], cwd=tmp_path, env=environment, check=True
    )
    figures.save(figures.comparison({"a": [[[0.5]]]}), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
