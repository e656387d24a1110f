import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

import isnas_jax as isnas
from experiments import screenshots
from isnas_jax import figures, report
from isnas_jax.io import images, records
from isnas_jax.networks.genotypes import NUM_CELLS, decode_cell

GENOTYPE = "5:0011000010011000010011110"
COMMAND = "python -m experiments.search --image='<&>.png'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a search writes down, its numbers made up."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    clean = rng.random((64, 96, 3)).astype(np.float32)
    curves = rng.random(20).astype(np.float32)
    problem = isnas.denoising(clean, sigma=25)
    quality = {"psnr_ema": curves, "validation": curves, "psnr": curves}
    fit = isnas.Fit(
        loss=curves, criterion=curves, output=clean, ema=clean, restored=clean, restored_at=7,
        best=None, snapshots={}, variables=None, **quality,
    )  # fmt: skip
    record = report.write_restoration(
        folder, problem, clean, [report.Member(GENOTYPE, 0.75, fit)], clean
    )
    assert record["restored"]["psnr"] == np.inf
    config = {"script": "search", "image": "<&>.png", "task": "denoising", "seed": 0}
    records.write_json(folder / "config.json", config)
    (folder / records.COMMAND).write_text(COMMAND + "\n")
    rows = [
        {"rank": 0, "member": GENOTYPE, "score": 1.5, "weight": 0.75, "restored_at": 7.0},
        {"rank": 1, "member": "dip", "score": np.nan, "weight": 0.25, "restored_at": 9.0},
    ]
    for rank, row in enumerate(rows):
        images.save(folder / "cohort" / f"0{rank}.png", clean)
        row |= {"validation": 0.1, "selected": rank == 1}
    records.write_csv(folder / "cohort.csv", rows)
    scores = {"strip": np.array([[3.0], [1.0], [2.0]])}
    others = ["172:0000011001001001100111101", "316:0001010110110101110010111"]
    report.write_scores(folder, [GENOTYPE, *others], scores)
    report.write_timings(folder, {"score": 1.25})
    report.write_page(folder)
    return folder


class Elements(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_needs_nothing_else_and_shows_the_files(folder):
    text = (folder / report.PAGE).read_text()
    page = Elements(text)
    addresses = [image["src"] for image in page.all("img") if image["src"]]
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert not re.search(r"""(src|href)=["']?(https?:|//|file:)""", text)
    # The two that a script fills are empty without it.
    assert sum(not image["alt"] for image in page.all("img")) == 2
    shown = [base64.b64decode(address.partition(",")[2]) for address in addresses]
    for name in ("observed.png", "restored.png", "clean.png", "spectra.png"):
        assert (folder / name).read_bytes() in shown
    said = "".join(page.text)
    assert "<&>.png" in said
    assert "stride 2; ReLU" in said
    assert said.index("172:0000") < said.index("316:0001")  # by their scores


def test_the_page_is_made_again_of_the_records_alone(folder):
    before = (folder / report.PAGE).read_bytes()
    (folder / report.PAGE).unlink()
    report.write_page(folder)
    assert (folder / report.PAGE).read_bytes() == before


def test_a_folder_without_records_is_refused(tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"{str(tmp_path)!r} holds no records")):
        report.write_page(tmp_path)


def test_tables_of_a_comparison(tmp_path):
    records.write_json(tmp_path / "config.json", {"script": "compare", "images": ["a.png"]})
    records.write_csv(tmp_path / "psnr.csv", [{"image": "a", "DIP": "28.1 ± 0.1", "BM3D": "27.70"}])
    runs = [
        {"task": "denoising", "image": image, "seed": 0, "method": method, "psnr": psnr}
        for method, image, psnr in (
            *(("DIP", "a", 28.123456789), ("DIP", "b", 30.5)),
            *(("BM3D", "a", 27.75), ("BM3D", "b", 31.45)),
        )
    ]
    records.write_csv(tmp_path / "runs.csv", runs)
    report.write_page(tmp_path)
    page = Elements((tmp_path / report.PAGE).read_text())
    for shown in (
        "denoising, 2 images, 1 seed. Mean PSNR: BM3D 29.60 dB, DIP 29.31 dB.",
        *("28.1 ± 0.1", "27.70", "28.12"),
    ):
        assert shown in page.text
    # Said once for those who see it.
    assert {found["class"] for found in page.all("caption")} == {"unseen"}
    assert any("standard error" in text for text in page.text)


def test_cells_in_words_tell_all_cells_apart():
    words = [isnas.Genotype(cell, "0" * 25).cell_in_words() for cell in range(NUM_CELLS)]
    assert len(set(words)) == NUM_CELLS
    for index, said in enumerate(words):
        cell = decode_cell(index)
        assert (f"{cell.kernel} × {cell.kernel}" in said) == (cell.convolution != "identity")
        assert ("leaky ReLU" in said) == (cell.activation == "leaky_relu")


def test_drawings_have_a_line_or_a_square_for_each_skip():
    genotype = isnas.Genotype.parse(GENOTYPE)
    skips = np.array(genotype.skip_matrix())
    for level, source in np.ndindex(5, 5):
        assert skips[level, source] == genotype.has_skip(level + 1, source)
    lines = Elements(genotype.diagram()).all("line")
    assert len(lines) == skips.sum() + 10  # and five arrows down, five up
    (path,) = Elements(figures.skip_matrix(skips)).all("path")
    assert path["d"].count("M") == skips.sum()


def test_a_result_draws_itself():
    image = np.linspace(0, 1, 4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    drawn = Elements(figures.picture(image, "a < b"))
    (shown,) = drawn.all("img")
    with Image.open(io.BytesIO(base64.b64decode(shown["src"].partition(",")[2]))) as decoded:
        np.testing.assert_array_equal(np.asarray(decoded), np.round(image * 255))
    assert "a < b" in "".join(drawn.text)


@pytest.fixture(scope="module")
def opened():
    try:
        with screenshots.browser() as found:
            yield found
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "view",
    [
        view if view == "desktop" else pytest.param(view, marks=pytest.mark.thorough)
        for view in screenshots.VIEWS
    ],
)
def test_in_a_browser(opened, folder, view):
    screenshots.look(opened, folder / report.PAGE, view)
    run = opened.execute_script
    assert opened.get_log("browser") == []
    inner, content = run("return [innerWidth, document.documentElement.scrollWidth]")
    assert (inner, content) == (screenshots.VIEWS[view][0],) * 2
    # All images are there, none without an alternative text now.
    assert run("return [...document.images].every(i => i.complete && i.naturalWidth && i.alt)")
    dark = run("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (view == "dark")


def test_the_slider_divides_and_columns_sort(opened, folder):
    screenshots.look(opened, folder / report.PAGE, "desktop")
    run = opened.execute_script

    def seen_at(share):
        """Which of the two images lies under a point, by where the line is."""
        return run(
            "const range = document.querySelector('[name=at]'); range.value = arguments[0];"
            "range.dispatchEvent(new Event('input'));"
            "const box = document.querySelector('.pair').getBoundingClientRect();"
            "return document.elementFromPoint(box.left + box.width / 2, box.top + 20).className",
            share,
        )

    assert seen_at(20) == "over"
    assert seen_at(80) == "under"
    genotypes = (
        "const table = [...document.querySelectorAll('table')].at(-2);"
        "if (arguments[0]) table.querySelectorAll('th button')[2].click();"
        "return [...table.tBodies[0].rows].map(row => row.cells[1].textContent.split(':')[0])"
    )
    assert run(genotypes, False) == ["172", "316", "5"]
    assert run(genotypes, True) == ["172", "316", "5"]
    assert run(genotypes, True) == ["5", "316", "172"]


def test_the_page_says_who_was_chosen_and_how_to_repeat_it(folder):
    page = Elements((folder / report.PAGE).read_text())
    said = [text.strip() for text in page.text if text.strip()]
    assert COMMAND in said
    cohort = said[said.index("The cohort") :]
    dip = cohort.index("dip")
    assert cohort[dip - 1] == "selected"
    assert cohort[dip + 1 : dip + 4] == ["0.1", "0.25", "9"]
    assert cohort[cohort.index(GENOTYPE) - 1] != "selected"
    assert said[said.index("seed") + 1] == "0"
    assert sum("cohort: " in image["alt"] for image in page.all("img")) == 2


def test_an_observation_smaller_than_an_image_may_be(tmp_path):
    clean = np.random.default_rng(0).random((64, 96, 3)).astype(np.float32)
    problem = isnas.super_resolution(clean[::8, ::8], 8)
    report.write_restoration(tmp_path, problem, clean, [report.Member("bicubic", 1.0, None)])
    records.write_json(tmp_path / "config.json", {"script": "restore"})
    page = Elements(report.write_page(tmp_path).read_text())
    assert any("observed" in image["alt"] for image in page.all("img"))
    assert not any("less restored" in image["alt"] for image in page.all("img"))


def test_the_page_of_a_run_that_goes_on_reloads_itself_until_the_result_is_there(tmp_path):
    clean = np.random.default_rng(0).random((32, 48, 3)).astype(np.float32)
    problem, restored = isnas.denoising(1 - clean, sigma=25), clean / 2
    records.write_json(tmp_path / "config.json", {"script": "search", "image": "\udcff.png"})

    def page():
        found = Elements((tmp_path / report.PAGE).read_text())
        return found, [meta for meta in found.all("meta") if meta.get("http-equiv") == "refresh"]

    report.write_preview(tmp_path, problem, restored, "about 0:02:00 left, cohort 2/3")
    found, refresh = page()
    assert len(refresh) == 1
    assert any(text.startswith("Running: about 0:02:00 left, cohort 2/3") for text in found.text)
    np.testing.assert_allclose(images.load(tmp_path / "restored.png"), restored, atol=0.51 / 255)
    report.write_page(tmp_path, "")
    found, refresh = page()
    assert not refresh
    assert any(text.startswith("Stopped at") for text in found.text)
    report.write_restoration(tmp_path, problem, clean, [report.Member("dip", 1.0, None)])
    report.write_page(tmp_path)
    found, refresh = page()
    assert not refresh
    assert not any("so far" in image["alt"] for image in found.all("img"))
