"""Test paths as users type them."""

import pytest

from isnas_jax.io import paths


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("photo.png", "photo.png"),
        ("", ""),
        ("it's.png", "it's.png"),
        ("~/photo.png", "/home/me/photo.png"),
        ("a~b/~c.png", "a~b/~c.png"),
        ("a%20b.png", "a%20b.png"),
        ("sample:moon", "sample:moon"),
        ("Sample:Moon", "sample:moon"),
    ],
)
def test_from_text(text, path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.from_text(text) == path
    assert paths.from_text(path) == path


@pytest.mark.parametrize("text", ["https://example.org/a.png", "s3://a/b", "file:///a.png"])
def test_urls_are_refused(text):
    with pytest.raises(ValueError, match=rf"{text}'.*download it first"):
        paths.from_text(text)
