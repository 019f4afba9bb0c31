"""docs/check.py finds whatever a page asks of another machine, and every link that leads nowhere, and nothing else."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("check", Path(__file__).parents[1] / "docs" / "check.py")
check = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check)

NEEDS = [  # ways to ask for something; a browser follows each by itself
    '<script src="{}"></script>',
    "<script src={}></script>",
    '<link rel="stylesheet" href="{}">',
    '<link rel="preconnect" href="{}">',
    '<img src="{}">',
    '<img alt="x" srcset="{} 2x">',
    '<iframe src="{}"></iframe>',
    '<video poster="{}"></video>',
    '<object data="{}"></object>',
    '<svg><image href="{}"/></svg>',
    '<svg><use xlink:href="{}"/></svg>',
    '<p style="background: url({})">x</p>',
    "<style>@import '{}';</style>",
    "<style>@font-face {{ src: url({}) }}</style>",
]


@pytest.fixture
def site(tmp_path):
    """Two pages with a place in each, and a file for whatever is asked for."""
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "there.x").touch()
    (tmp_path / "outside.x").touch()
    (site / "sub" / "other.html").write_text('<h1 id="other-place">x</h1>', encoding="utf-8")
    return site


def wrong(site, html):
    (site / "page.html").write_text(f'<h1 id="place">x</h1>{html}', encoding="utf-8")
    return check.complaints(site)


@pytest.mark.parametrize("need", NEEDS)
@pytest.mark.parametrize("far", ["https://example.org/a.x", "//example.org/a.x", "http://example.org/a.x"])
def test_what_is_asked_of_another_machine_is_wrong(site, need, far):
    assert [far in line for line in wrong(site, need.format(far))] == [True]


@pytest.mark.parametrize("need", NEEDS)
def test_what_lies_beside_the_page_is_fine_and_what_does_not_is_wrong(site, need):
    assert wrong(site, need.format("there.x")) == []
    assert len(wrong(site, need.format("nowhere.x"))) == 1
    assert len(wrong(site, need.format("../outside.x"))) == 1  # it would be missing wherever the pages are put
    assert wrong(site, need.format("data:,x")) == []


@pytest.mark.parametrize("script", ["import('{}')", 'fetch("{}")', "image.src = '{}'", "importScripts('{}')"])
def test_a_script_that_fetches_is_wrong(site, script):
    """In a page and in a file; an address that stands in a comment is not asked for."""
    assert len(wrong(site, f"<script>{script.format('https://example.org/a.js')}</script>")) == 1
    assert wrong(site, "<script>// see https://example.org</script>") == []
    assert len(wrong(site, f"<script>{script.format('//example.org/a.js')}</script>")) == 1
    (site / "page.html").unlink()
    (site / "a.js").write_text(script.format("https://example.org/a.js"), encoding="utf-8")
    assert len(check.complaints(site)) == 1


@pytest.mark.parametrize("css", ["a { background: url('//example.org/a.png') }", "a { src: url(fonts/nowhere.woff2) }"])
def test_a_style_sheet_is_read_too(site, css):
    (site / "sub" / "a.css").write_text(css, encoding="utf-8")
    assert len(check.complaints(site)) == 1


@pytest.mark.parametrize(
    ("link", "right"),
    [
        ("sub/other.html", True),
        ("sub/other.html#other-place", True),
        ("sub/../page.html?q=1#place", True),
        ("#place", True),
        ("https://example.org", True),
        ("mailto:a@example.org", True),
        ("#other-place", False),
        ("sub/other.html#place", False),
        ("other.html", False),
        ("sub", False),
        ("/page.html", False),
        ("../outside.x", False),
    ],
)
def test_a_link_leads_to_a_page_and_a_place(site, link, right):
    refresh = '<meta http-equiv="refresh" content="0; url={}">'
    for html in ('<a href="{}">x</a>', '<svg><area href="{}"></svg>', refresh):
        assert (wrong(site, html.format(link)) == []) is right


def test_a_folder_without_pages_is_no_site(tmp_path):
    assert len(check.complaints(tmp_path)) == 1
