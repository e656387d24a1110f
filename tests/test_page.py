import base64
import html.parser
import io
import re

import numpy as np
import pytest
from browser import VIEWS, chromium, open_page
from PIL import Image

import isnas_jax as isnas
from isnas_jax import figures, report
from isnas_jax.io import images, records
from isnas_jax.networks.genotypes import NUM_CELLS, decode_cell
from isnas_jax.report.elements import Bar, Chart, tables

GENOTYPE = "5:0011000010011000010011110"
COMMAND = "python -m experiments.search --image='<&>.png'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a finished search with made-up numbers."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    clean = rng.random((64, 96, 3)).astype(np.float32)
    curves = rng.random(20).astype(np.float32)
    problem = isnas.denoising(clean, sigma=25)
    fit = isnas.Fit(
        loss=curves, validation=curves, psnr=curves, psnr_ema=curves, criterion=curves,
        output=clean, ema=clean, restored=clean, restored_at=7, best=None, snapshots={},
        variables=None,
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
    report.write_timings(folder, {"score": 61.25})
    report.write_page(folder)
    return folder


class Elements(html.parser.HTMLParser):
    """Start tags with attributes, and text, of an HTML page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if data.strip():
            self.text.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(folder):
    return Elements((folder / report.PAGE).read_text())


def test_page_is_self_contained_and_embeds_the_image_files(folder):
    text = (folder / report.PAGE).read_text()
    page = Elements(text)
    addresses = [image["src"] for image in page.all("img") if image["src"]]
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert not re.search(r"""(src|href)=["']?(https?:|//|file:)""", text)
    # A script fills the two images of the viewer, which is hidden without scripts.
    assert sum(not image["alt"] for image in page.all("img")) == 2
    shown = [base64.b64decode(address.partition(",")[2]) for address in addresses]
    for name in ("observed.png", "restored.png", "clean.png", "spectra.png"):
        assert (folder / name).read_bytes() in shown
    joined = "".join(page.text)
    assert "<&>.png" in joined
    assert "stride 2; ReLU" in joined


def test_candidates_are_sorted_by_score(folder):
    joined = "".join(read_page(folder).text)
    assert joined.index("172:0000") < joined.index("316:0001")


def test_page_leads_with_images_then_statistics_then_folded_sections(folder):
    page = read_page(folder)
    tags = [tag for tag, _ in page.tags]
    observed, restored = page.all("img")[:2]
    assert [observed["alt"], restored["alt"]] == ["The image, observed", "The image, restored"]
    assert tags.index("img") < tags.index("dl") < tags.index("details")
    sections = [attributes for attributes in page.all("details") if "class" in attributes]
    assert len(sections) == tags.count("h2") == 5
    assert not any("open" in attributes for attributes in sections)
    assert page.text[page.text.index("time") + 1] == "0:01:01"
    assert "1 member" in page.text
    assert f"75% {GENOTYPE}" in page.text


def test_gain_is_shown_where_the_clean_image_is_known(tmp_path):
    clean = np.random.default_rng(0).random((32, 48, 3)).astype(np.float32)
    problem = isnas.denoising(np.clip(clean + 0.2, 0, 1), sigma=25)
    member = report.Member("dip", 1.0, None)
    records.write_json(tmp_path / "config.json", {"script": "restore"})
    record = report.write_restoration(tmp_path, problem, 0.9 * clean, [member], clean)
    report.write_page(tmp_path)
    gain = record["restored"]["psnr"] - record["observed"]["psnr"]
    assert f"+{gain:.2f} dB" in read_page(tmp_path).text
    (tmp_path / "clean.png").unlink()
    report.write_restoration(tmp_path, problem, 0.9 * clean, [member])
    report.write_page(tmp_path)
    assert not any(re.search(r"\d dB", text) for text in read_page(tmp_path).text)


def test_page_is_reproducible_from_the_records(folder):
    before = (folder / report.PAGE).read_bytes()
    (folder / report.PAGE).unlink()
    report.write_page(folder)
    assert (folder / report.PAGE).read_bytes() == before


def test_folder_without_records_raises(tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"{str(tmp_path)!r} holds no records")):
        report.write_page(tmp_path)


def test_comparison_page_leads_with_the_gain_of_each_method(tmp_path):
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
    page = read_page(tmp_path)
    for text in (
        "Comparison of 2 methods: denoising",
        "BM3D has the highest mean PSNR over 2 images and 1 seed.",
        *("28.1 ± 0.1", "27.70", "28.12"),
    ):
        assert text in page.text
    chart = page.text[page.text.index("Gain in PSNR over DIP") + 2 :]
    assert chart[:3] == ["BM3D", "+0.29 dB", "−0.37 to +0.95; 29.60 dB"]
    assert chart[3:6] == ["DIP", "+0.00 dB", "+0.00 to +0.00; 29.31 dB"]
    tags = [tag for tag, _ in page.tags]
    assert tags.index("ol") < tags.index("details")
    captions = [attributes["aria-label"] for attributes in page.all("table")]
    assert len(set(captions)) == len(captions) == 2
    assert all(page.text.count(caption) == 1 for caption in captions)
    assert any("standard error" in caption for caption in captions)


def test_study_page_leads_with_kendalls_tau_of_each_metric(tmp_path):
    config = {"script": "analyze", "dataset": "d", "genotypes": 9, "cases": {"denoising": ["a"]}}
    records.write_json(tmp_path / "analysis.json", config)
    control = {"control": 0.1, "control_low": -0.2, "control_high": 0.3, "n": 9}
    rows = [
        {"task": "denoising", "image": image, "outcome": outcome, "metric": metric}
        | {"reference": reference, "tau": tau, "low": tau - 0.1, "high": tau + 0.1}
        | control
        for outcome, metric, tau in (
            *(("best PSNR", "flat", -0.0001), ("best PSNR", "strip", -0.5)),
            *(("PSNR increase", "flat", -0.3), ("constant", "flat", np.nan)),
        )
        for image in ("a", "mean")
        for reference in ("observed", "clean")
    ]
    records.write_csv(tmp_path / "table1.csv", rows)
    report.write_page(tmp_path)
    page = read_page(tmp_path)
    start = page.text.index("Kendall's τ between score and best PSNR") + 2
    assert page.text[start : start + 9] == [
        *("strip", "−0.50", "−0.60 to −0.40"),
        *("flat", "0.00", "−0.10 to 0.10"),
        *("random score", "0.10", "−0.20 to 0.30"),
    ]
    lead = page.text[: page.text.index("Rank correlation by image")]
    assert not any("nan" in text or "constant" in text for text in lead)


def test_chart_scale_includes_zero_and_all_intervals():
    bars = [Bar("a", -3.8, -5.6, -2.2, ""), Bar("b", 1.0, np.nan, np.nan, "")]
    chart = Chart("", "", bars)
    low, high = chart.limits()
    assert low < -5.6
    assert high > 1.0
    assert chart.percent(low) == 0
    assert chart.percent(high) == 100
    flat = Chart("", "", [Bar("a", 0.0, np.nan, np.nan, "")])
    assert 0 <= flat.percent(0.0) < 100


def test_empty_columns_are_dropped():
    (table,) = tables([{"name": "a", "score": ""}, {"name": "b", "score": ""}], "caption")
    assert [list(row) for row in table.rows] == [["name"], ["name"]]


def test_cell_descriptions_are_unique():
    words = [isnas.Genotype(cell, "0" * 25).cell_in_words() for cell in range(NUM_CELLS)]
    assert len(set(words)) == NUM_CELLS
    for index, description in enumerate(words):
        cell = decode_cell(index)
        kernel = f"{cell.kernel} × {cell.kernel}"
        assert (kernel in description) == (cell.convolution != "identity")
        assert ("leaky ReLU" in description) == (cell.activation == "leaky_relu")


def test_drawings_have_one_line_or_square_per_skip():
    genotype = isnas.Genotype.parse(GENOTYPE)
    skips = np.array(genotype.skip_matrix())
    for level, source in np.ndindex(5, 5):
        assert skips[level, source] == genotype.has_skip(level + 1, source)
    lines = Elements(genotype.diagram()).all("line")
    assert len(lines) == skips.sum() + 10  # and five arrows down, five up
    (path,) = Elements(figures.skip_matrix(skips)).all("path")
    assert path["d"].count("M") == skips.sum()


def test_notebook_picture_has_the_pixels_and_an_escaped_caption():
    image = np.linspace(0, 1, 4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
    picture = Elements(figures.picture(image, "a < b"))
    (shown,) = picture.all("img")
    with Image.open(io.BytesIO(base64.b64decode(shown["src"].partition(",")[2]))) as decoded:
        np.testing.assert_array_equal(np.asarray(decoded), np.round(image * 255))
    assert "a < b" in "".join(picture.text)


@pytest.fixture(scope="module")
def browser():
    try:
        with chromium() as browser:
            yield browser
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    "view",
    [
        view if view == "desktop" else pytest.param(view, marks=pytest.mark.thorough)
        for view in VIEWS
    ],
)
def test_page_in_a_browser(browser, folder, view):
    open_page(browser, folder / report.PAGE, view)
    run = browser.execute_script
    assert browser.get_log("browser") == []
    for opened in (False, True):
        run("document.querySelectorAll('details').forEach(d => d.open = arguments[0])", opened)
        inner, content = run("return [innerWidth, document.documentElement.scrollWidth]")
        assert (inner, content) == (VIEWS[view][0],) * 2
    # Scripts have filled the viewer, so every image has a source and a text alternative.
    assert run("return [...document.images].every(i => i.complete && i.naturalWidth && i.alt)")
    dark = run("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (view == "dark")
    tops = run(
        "return [...document.querySelectorAll('.hero img')].map(i => i.getBoundingClientRect())"
    )
    assert (tops[0]["left"] == tops[1]["left"]) == (view == "phone")
    assert tops[0]["top"] == tops[1]["top"]


def test_slider_divides_two_images(browser, folder):
    open_page(browser, folder / report.PAGE, "desktop")

    def image_at_center(divide):
        """Return the class of the image at the center, for a position of the slider."""
        return browser.execute_script(
            "const viewer = document.querySelector('.viewer');"
            "viewer.closest('details').open = true;"
            "const range = viewer.querySelector('[name=at]'); range.value = arguments[0];"
            "range.dispatchEvent(new Event('input'));"
            "const pair = viewer.querySelector('.pair'); pair.scrollIntoView();"
            "const box = pair.getBoundingClientRect();"
            "return document.elementFromPoint(box.left + box.width / 2, box.top + 20).className",
            divide,
        )

    assert image_at_center(20) == "right"
    assert image_at_center(80) == "left"


def test_columns_sort(browser, folder):
    open_page(browser, folder / report.PAGE, "desktop")
    genotypes = (
        "const table = document.querySelector('table[aria-label^=Candidates]');"
        "table.closest('details').open = true;"
        "if (arguments[0]) table.querySelectorAll('th button')[2].click();"
        "return [...table.tBodies[0].rows].map(row => row.cells[1].textContent.split(':')[0])"
    )
    run = browser.execute_script
    assert run(genotypes, False) == ["172", "316", "5"]
    assert run(genotypes, True) == ["172", "316", "5"]
    assert run(genotypes, True) == ["5", "316", "172"]


def test_page_shows_the_decision_and_the_command(folder):
    page = read_page(folder)
    assert COMMAND in page.text
    cohort = page.text[page.text.index("Cohort") :]
    dip = cohort.index("dip")
    assert cohort[dip + 1] == "selected"
    assert cohort[dip + 2 : dip + 5] == ["0.1", "0.25", "9"]
    assert cohort[cohort.index(GENOTYPE) + 1] != "selected"
    assert any('"seed": 0' in text for text in page.text)
    assert sum("cohort: " in image["alt"] for image in page.all("img")) == 2


def test_tables_have_at_most_eight_columns(folder):
    text = (folder / report.PAGE).read_text()
    heads = re.findall(r"<thead>(.*?)</thead>", text)
    assert heads
    assert all(head.count("<th ") <= 8 for head in heads)


def test_difference_is_left_out_where_sizes_differ(tmp_path):
    clean = np.random.default_rng(0).random((64, 96, 3)).astype(np.float32)
    problem = isnas.super_resolution(clean[::8, ::8], 8)
    report.write_restoration(tmp_path, problem, clean, [report.Member("bicubic", 1.0, None)])
    records.write_json(tmp_path / "config.json", {"script": "restore"})
    page = Elements(report.write_page(tmp_path).read_text())
    assert any("observed" in image["alt"] for image in page.all("img"))
    assert not any("minus restored" in image["alt"] for image in page.all("img"))


def test_page_reloads_until_the_run_ends(tmp_path):
    clean = np.random.default_rng(0).random((32, 48, 3)).astype(np.float32)
    problem, restored = isnas.denoising(1 - clean, sigma=25), clean / 2
    records.write_json(tmp_path / "config.json", {"script": "search", "image": "\udcff.png"})

    def read():
        page = read_page(tmp_path)
        return page, [meta for meta in page.all("meta") if meta.get("http-equiv") == "refresh"]

    report.write_preview(tmp_path, problem, restored, "about 0:02:00 left, cohort 2/3")
    page, refresh = read()
    assert len(refresh) == 1
    assert any(text.startswith("Running: about 0:02:00 left, cohort 2/3") for text in page.text)
    np.testing.assert_allclose(images.load(tmp_path / "restored.png"), restored, atol=0.51 / 255)
    report.write_page(tmp_path, "")
    page, refresh = read()
    assert not refresh
    assert any(text.startswith("Stopped at") for text in page.text)
    report.write_restoration(tmp_path, problem, clean, [report.Member("dip", 1.0, None)])
    report.write_page(tmp_path)
    page, refresh = read()
    assert not refresh
    assert not any("so far" in image["alt"] for image in page.all("img"))
