"""Test paths as users type, paste or drop them."""

import pathlib
import unicodedata

import pytest

from isnas_jax.io import paths


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("photo.png", "photo.png"),
        ("", ""),
        ("  photo.png\n", "photo.png"),
        ('"my photo.png"', "my photo.png"),
        (" 'my photo.png' ", "my photo.png"),
        ("“photo.png”", "photo.png"),
        ("it's.png", "it's.png"),
        ("~/photo.png", "/home/me/photo.png"),
        ("'~/photo.png'", "/home/me/photo.png"),
        ("a~b/~c.png", "a~b/~c.png"),
        ("file:///a/my%20photo%23%C3%A9.png", "/a/my photo#é.png"),
        ("FILE://localhost/a/b.png", "/a/b.png"),
        ("file:/a/b.png", "/a/b.png"),
        ("a%20b.png", "a%20b.png"),
        ("sample:moon", "sample:moon"),
        (" Sample: Moon", "sample:moon"),
    ],
)
def test_from_text(text, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.from_text(text) == path
    assert paths.from_text(path) == path


def test_an_existing_file_of_exactly_this_name_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (" photo.png ", "'photo.png'"):
        pathlib.Path(name).touch()
        assert paths.from_text(name) == name


def test_accents_match_in_both_unicode_forms(tmp_path):
    composed = str(tmp_path / "Café.png")
    decomposed = unicodedata.normalize("NFD", composed)
    pathlib.Path(decomposed).touch()
    assert pathlib.Path(paths.from_text(composed)).exists()
    assert paths.from_text(str(tmp_path / "résumé")) == str(tmp_path / "résumé")


@pytest.mark.parametrize("text", ["https://example.org/a.png", "s3://a/b", "file://server/a.png"])
def test_urls_are_refused(text):
    with pytest.raises(ValueError, match=rf"{text}'.*(download it|copy it here) first"):
        paths.from_text(text)
