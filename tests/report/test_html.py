"""The HTML report: one offline page, well formed, in which no name from outside can do anything."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from edgekit.artifacts import Verification
from edgekit.report.html import NAME_LIMIT, render_html

from . import sample

VOID = {"meta", "rect", "line"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; background: url(http://example.org)",
    "*/ --> ]]>",
    "\x1b[31mred\x07",
    "\u202egnp.exe\u2066",
    "../../etc/passwd",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
    "</svg></style>",
    "n" * 100_000,
]


class _Page(HTMLParser):
    """Tags in order, with their balance checked, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def _page(prefix: str = "layer", *, name: str = "kws", measured: bool = True) -> tuple[str, _Page]:
    compiled = sample.network(prefix)
    document, target = sample.document(compiled, name=name, measured=measured)
    text = render_html(document, compiled, target, sample.details())
    return text, _Page(text)


def test_page_needs_nothing_from_outside() -> None:
    text, page = _page()
    assert not {"script", "link", "img", "iframe", "object", "base", "form", "a"} & set(page.tags)
    assert not {"src", "href", "srcset", "action"} & {name for name, _ in page.attributes}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_do_no_harm(hostile: str) -> None:
    text, page = _page(hostile, name=hostile)
    _, harmless = _page()
    # A label that does not fit its rectangle is left out; nothing else may change.
    assert [tag for tag in page.tags if tag != "text"] == [tag for tag in harmless.tags if tag != "text"]
    assert {name for name, _ in page.attributes} == {name for name, _ in harmless.attributes}
    styles = [value for name, value in page.attributes if name == "style"]
    assert styles == [value for name, value in harmless.attributes if name == "style"]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)
    assert "49" not in page.words.split("→")[0]
    assert len(text) < 60_000 + 40 * NAME_LIMIT


def test_every_number_is_there_with_unit_and_source() -> None:
    _, page = _page()
    for expected in [
        "61,440 B",
        "25,600 B",
        "read from the ELF",
        "89.83 %",
        "600 rows, answered by the device",
        "bit-exact",
        "p10 8,942,628, p50 8,942,628, p90 8,942,628 instructions (clock: fpgaio at 25,000,000 Hz)",
        "They are no time",
        "612 B of 4,096 B",
        "0.5847029 · (stored − 83)",
        "kws01_600.npz, rows 0 to 599",
        "5c" * 32,
        "ab" * 32,
        "0.27.0.post1",
    ]:
        assert expected in page.words, expected


def test_bars_are_proportional_to_the_measured_cost() -> None:
    text, _ = _page()
    widths = [float(value) for value in re.findall(r"calc\(\(100% - 56px\) \* ([0-9.]+)\)", text)]
    costs = [6.0 * op.macs + 1200 for op in sample.network().operators]
    assert len(widths) == len(costs)
    assert max(widths) == 1.0
    for width, cost in zip(widths, costs, strict=True):
        assert width == pytest.approx(cost / max(costs), abs=2e-4)


def test_without_a_measurement_no_cost_is_shown() -> None:
    _, page = _page(measured=False)
    assert "Nothing was measured" in page.words
    assert "per MAC" not in page.words
    assert "One inference" not in page.words


def test_a_measurement_without_a_table_of_operators_shows_macs() -> None:
    compiled = sample.network()
    document, target = sample.document(compiled)
    assert document.profile is not None
    document = replace(document, profile=replace(document.profile, operators=()))
    text = render_html(document, compiled, target, sample.details())
    assert "No operator has a cost of its own" in text
    assert "per MAC" not in text


def test_a_failed_verification_is_plain_to_see() -> None:
    compiled = sample.network()
    failed = Verification("exact", False, False, 16, 0.0, 3.0, "row 2, output 0, byte 5: 7 and 4 <b>")
    document, target = sample.document(compiled, verification=failed)
    text = render_html(document, compiled, target)
    page = _Page(text)
    assert "differs" in page.words
    assert 'class="value bad"' in text
    assert "row 2, output 0, byte 5: 7 and 4 <b>" in page.words
    assert "b" not in page.tags[page.tags.index("dl") :]


def test_limits_that_are_not_stated_are_not_invented() -> None:
    compiled = sample.network()
    document, target = sample.document(compiled)
    document = replace(document, memory=replace(document.memory, flash_limit=None, ram_limit=None))
    assert _Page(render_html(document, compiled, target)).words.count("of no limit stated") == 2


def test_same_arguments_same_text() -> None:
    assert _page()[0] == _page()[0]
