"""The page of the comparison: every layer in chart and table, names escaped, nothing from elsewhere."""

from __future__ import annotations

from html.parser import HTMLParser

from edgekit.layer_errors import Advice, Comparison, LayerError
from edgekit.report.layers import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, layer_chart, render_layers


def _layer(index: int, whole: float | None, alone: float | None, name: str = "a") -> LayerError:
    advice = (Advice("qat", "fine-tune <it>"),) if alone is not None and alone < 30 else ()
    return LayerError(index, name, "conv2d", "int8", whole, alone, 0.5, 0.001, advice)


COMPARISON = Comparison(
    32,
    "source",
    (_layer(0, 41.0, 41.0), _layer(1, -3.0, 12.0, "<script>alert(1)</script>\x1b[2J"), _layer(2, None, None)),
    (1, 0),
)


def test_higher_ratios_stand_higher_and_all_inside() -> None:
    chart = layer_chart(COMPARISON)
    first, second, exact = chart.points
    assert first.whole_y is not None
    assert second.whole_y is not None
    assert second.alone_y is not None
    assert first.whole_y < second.alone_y < second.whole_y
    assert exact.whole_y is None
    for point in chart.points:
        assert LEFT < point.x < WIDTH
        assert all(y is None or TOP <= y <= HEIGHT - BOTTOM for y in (point.whole_y, point.alone_y))
    assert [text for _, text in chart.grid] == ["-10", "0", "10", "20", "30", "40", "50"]
    assert [point.worst for point in chart.points] == [True, True, False]
    heights = [height for height, _ in chart.grid]
    assert heights == sorted(heights, reverse=True)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))


def test_the_page_stands_alone_and_trusts_no_name() -> None:
    page = render_layers("net<b>", "host", COMPARISON)
    assert page == render_layers("net<b>", "host", COMPARISON)
    tags = _Tags()
    tags.feed(page)
    names = [tag for tag, _ in tags.found]
    assert not {"script", "b", "it"} & set(names)
    assert not [attributes for _, attributes in tags.found if {"src", "href", "onclick"} & set(attributes)]
    assert "\x1b" not in page
    assert names.count("circle") == 4
    assert names.count("tr") == 4
    assert "41.0 dB" in page
    assert "exact" in page
    assert "fine-tune &lt;it&gt;" in page


def test_a_comparison_of_nothing_draws_an_empty_chart() -> None:
    chart = layer_chart(Comparison(1, "source", (), ()))
    assert chart.points == ()
    assert chart.line == ""
    assert render_layers("m", "host", Comparison(1, "source", (), ()))
