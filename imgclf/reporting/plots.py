"""The report's charts, as inline SVG made by altair and vl-convert: no script runs in the page.

Colours are the light theme's; the page's style sheet maps them to the dark theme's by these very values. Charts are drawn about
340 px wide, so that three stand side by side on a wide screen and one fits a telephone unscaled; `row_width` is for rows of another number.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from markupsafe import Markup

PLOT = 285  # width of the area inside the axes, where two charts stand above each other
BLUE, ORANGE, INK, MUTED, LINE = "#2f6fb2", "#d97a1d", "#1c2430", "#5f6b7a", "#dfe3e8"  # the same as in report.css
WIDTH, HEIGHT = 340, 240  # of a whole chart, its axes and title included
ROW, GAP = 1072, 24  # widths of the page's text and of the gap between two charts of a row, as in report.css
POINTS = 400  # of a line: longer series are averaged in blocks
PERCENT = "format(datum.value * 100, '~g') + '\u00a0%'"  # 97.2 %, as in the page's text
NUMBER = "format(datum.value, '~g')"  # Vega's own labels have no more digits than the step needs: 0.0012 reads 0.001
_POINTS = 1_000  # of a curve over classes
BLOCKS = 40  # rows and columns of the condensed confusion matrix


def row_width(charts: int) -> int:
    """The width in pixels of each of so many charts that fill a row together: drawn at this width, all have letters of one size."""
    return (ROW - GAP * (charts - 1)) // charts


def curves(series: Mapping[str, pd.DataFrame], title: str, best_epoch: float | None = None, *, share: bool = False) -> Markup:
    """Draws lines over epochs.

    Args:
      series: name ("train", "val", or one name of its own) → frame with columns epoch and value.
      title: of the vertical axis, shown above the chart.
      best_epoch: marked by a vertical line.
      share: values are shares of 1, shown in per cent.
    """
    frame = pd.concat([_thinned(rows).assign(series=name) for name, rows in series.items()])
    names = list(series)
    scale = alt.Scale(zero=False, nice=True)
    lines = alt.Chart(frame).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickCount=6, grid=False), scale=alt.Scale(nice=False)),
        y=alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=5, labelExpr=PERCENT if share else NUMBER), scale=scale),
        color=alt.Color(
            "series:N",
            scale=alt.Scale(domain=names, range=[ORANGE if name == "val" else BLUE for name in names]),
            legend=alt.Legend(title=None, orient="top-right" if not share else "bottom-right") if len(names) > 1 else None,
        ),
    )
    sparse = frame.groupby("series")["epoch"].transform("size") <= 40
    layers = [lines.mark_line(strokeWidth=1.8, clip=True), lines.transform_filter("datum.sparse").mark_circle(size=22, opacity=1)]
    layers = [layer.properties(data=frame.assign(sparse=sparse)) for layer in layers]
    if best_epoch is not None:
        rule = alt.Chart(pd.DataFrame({"epoch": [best_epoch]})).encode(x="epoch:Q")
        layers.insert(0, rule.mark_rule(color=MUTED, strokeDash=[3, 3]))
    return _svg(alt.layer(*layers), title)


def overlaid(frame: pd.DataFrame, title: str, *, share: bool = False, width: int = WIDTH) -> Markup:
    """Draws the curves of several arms over epochs, each with its band.

    Args:
      frame: columns arm, epoch, value, low and high.
      title: of the vertical axis, shown above the chart.
      share: values are shares of 1, shown in per cent.
      width: of the whole chart in pixels.
    """
    names = list(dict.fromkeys(frame["arm"]))
    axis = alt.Axis(tickCount=5, labelExpr=PERCENT if share else NUMBER)
    scale = alt.Scale(zero=False, nice=True)
    legend, legend_height = _legend_below(names, width)
    base = alt.Chart(frame[["arm", "epoch", "value", "low", "high"]]).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickCount=6, grid=False), scale=alt.Scale(nice=False)),
        color=alt.Color("arm:N", sort=None, scale=alt.Scale(domain=names, scheme="tableau20"), legend=legend),
    )
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=None, axis=axis, scale=scale), y2="high:Q")
    line = base.mark_line(strokeWidth=1.6).encode(y=alt.Y("value:Q", title=None, axis=axis, scale=scale))
    return _svg(band + line, title, height=HEIGHT + legend_height, width=width)


_LABEL_LIMIT = 190  # pixels that the name of a row gets at most
_LABEL_WIDTH = 6.8  # pixels per letter in the widest font that browsers take for system-ui; Vega measures with a narrower one


def _legend_below(names: list[str], width: int = WIDTH) -> tuple[alt.Legend, int]:
    """A legend under a chart, in two columns where the names leave room for them; and its height."""
    columns = 2 if max(map(len, names)) * _LABEL_WIDTH + 30 <= width / 2 else 1
    legend = alt.Legend(title=None, orient="bottom", columns=columns, labelLimit=width / columns - 30, symbolLimit=0, symbolOpacity=1)
    return legend, 18 * -(-len(names) // columns)


def intervals(rows: Sequence[Mapping[str, Any]], title: str, *, width: int | None = None) -> Markup:
    """Draws points with their 95 % intervals, one row each, in the order given.

    Args:
      rows: {name, value, low, high}, shares of 1.
      title: shown above the chart.
      width: of the whole chart in pixels; None = as the names need it.
    """
    frame = pd.DataFrame(rows)
    limit = _LABEL_LIMIT if width is None else min(_LABEL_LIMIT, 0.4 * width)
    extent = min(limit, _LABEL_WIDTH * int(frame["name"].str.len().max()))
    if width is None:
        width = round(WIDTH + max(0, extent - 80))
    names = alt.Y("name:N", title=None, sort=list(frame["name"]), axis=alt.Axis(labelLimit=limit, minExtent=extent))
    scale = alt.Scale(zero=False, nice=True)
    axis = alt.Axis(labelExpr=PERCENT, tickCount=5)
    bars = (
        alt.Chart(frame)
        .mark_rule(color=BLUE, strokeWidth=2)
        .encode(x=alt.X("low:Q", title=None, scale=scale, axis=axis), x2="high:Q", y=names)
    )
    points = alt.Chart(frame).mark_circle(color=BLUE, size=50, opacity=1).encode(x="value:Q", y=names)
    return _svg(bars + points, title, height=60 + 26 * len(frame), width=width, frame="bounds")


def data_sizes(found: Mapping[str, Mapping[str, Any]], title: str) -> Markup:
    """Draws accuracy over the number of training images: measured with intervals, and the fitted law, dashed beyond the measured.

    Args:
      found: name → what `evaluation.learning_curve.extrapolate` returned.
    """
    rows: dict[str, list[dict[str, Any]]] = {"points": [], "curve": []}
    for name, about in found.items():
        last = about["points"][-1]["images"]
        for kind, own in rows.items():
            for row in about[kind]:
                high, low = (1 - bound for bound in row["error_ci95"])
                place = {"name": name, "images": row["images"], "beyond": row["images"] > last * 1.0001}
                own.append(place | {"accuracy": 1 - row["error"], "low": low, "high": high})
    colour = alt.Color(
        "name:N",
        sort=None,
        scale=alt.Scale(domain=list(found), range=[BLUE, ORANGE, INK, MUTED][: len(found)]),
        legend=alt.Legend(title=None, orient="top", symbolOpacity=1),
    )
    ticks = sorted({row["images"] for about in found.values() for row in (*about["points"], *about["beyond"])})
    axis = alt.Axis(values=ticks, labelExpr="datum.label", format=",", grid=False, labelOverlap="greedy")
    x = alt.X("images:Q", title="training images per class", axis=axis, scale=alt.Scale(type="log", nice=False))
    y = alt.Y("accuracy:Q", title=None, axis=alt.Axis(labelExpr=PERCENT, tickCount=6), scale=alt.Scale(zero=False, nice=True))
    base = alt.Chart(pd.DataFrame(rows["points"])).encode(x=x, color=colour)
    layers = [
        base.mark_rule(strokeWidth=1.6).encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
        base.mark_circle(size=44, opacity=1).encode(y=y),
    ]
    if rows["curve"]:
        fitted = alt.Chart(pd.DataFrame(rows["curve"])).encode(x=x, color=colour)
        band = fitted.mark_area(opacity=0.14).encode(y=alt.Y("low:Q", title=None), y2="high:Q")
        inside = fitted.mark_line(strokeWidth=1.8).encode(y=y).transform_filter("!datum.beyond")
        layers = [band, inside, fitted.mark_line(strokeWidth=1.8, strokeDash=[4, 3], opacity=0.6).encode(y=y), *layers]
    return _svg(alt.layer(*layers), title, height=HEIGHT + 60)


def learning_rates(sweep: pd.DataFrame, marks: Mapping[str, float], title: str) -> tuple[Markup, bytes]:
    """Draws the loss over the learning rate of a finder's sweep, with its suggestions.

    Args:
      sweep: columns rate, loss and smoothed.
      marks: name → learning rate.

    Returns:
      The chart as SVG, and as a PNG of twice the size on white.
    """
    low, high = float(min(sweep["smoothed"].min(), sweep["loss"].min())), float(sweep["smoothed"].iloc[: max(1, len(sweep) // 2)].max())
    margin = max(0.1 * (high - low), 0.01 * high)
    vertical = alt.Scale(domain=[low - margin, high + margin], nice=False, zero=False)  # where it diverges, the loss leaves the chart
    horizontal = alt.X(
        "rate:Q", title="learning rate", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="~e", grid=False, tickCount=8)
    )
    base = alt.Chart(sweep)
    points = base.mark_circle(color=MUTED, size=10, opacity=0.45, clip=True).encode(
        x=horizontal, y=alt.Y("loss:Q", title=None, scale=vertical)
    )
    line = base.mark_line(color=BLUE, strokeWidth=1.8, clip=True).encode(x=horizontal, y=alt.Y("smoothed:Q", title=None, scale=vertical))
    layers = [points, line]
    if marks:
        found = pd.DataFrame({"name": list(marks), "rate": list(marks.values())})
        found["smoothed"] = np.interp(np.log(found["rate"]), np.log(sweep["rate"]), sweep["smoothed"])
        colour = alt.Color(
            "name:N",
            sort=None,
            legend=alt.Legend(title=None, orient="top"),
            scale=alt.Scale(domain=list(marks), range=[ORANGE, INK, MUTED]),
        )
        place = alt.Chart(found).encode(x="rate:Q", y="smoothed:Q", color=colour)
        layers.append(place.mark_circle(size=70, opacity=1))
    chart = alt.layer(*layers)
    png = vl_convert.vegalite_to_png(_styled(chart, title, background="white").to_dict(), scale=2)
    return _svg(chart, title), png


def severities(series: Mapping[str, pd.DataFrame], title: str, *, legend: bool = True) -> Markup:
    """Draws accuracy over the severity of a corruption: one line with the band of its interval, or several lines.

    Args:
      series: name → frame with columns severity (0 = clean), value, low and high, shares of 1.
      title: shown above the chart.
      legend: whether several lines are named.
    """
    frame = pd.concat([rows.assign(series=name) for name, rows in series.items()])
    scale, axis = alt.Scale(zero=True, nice=True), alt.Axis(tickCount=5, labelExpr=PERCENT)
    ticks = sorted(int(severity) for severity in frame["severity"].unique())
    horizontal = alt.X("severity:Q", title="severity", axis=alt.Axis(values=ticks, format="d", grid=False), scale=alt.Scale(nice=False))
    key, key_height = _legend_below(list(series)) if legend and len(series) > 1 else (None, 0)
    many = alt.Color("series:N", sort=None, scale=alt.Scale(domain=list(series), scheme="tableau20"), legend=key)
    colour = {"color": many if len(series) > 1 else alt.value(BLUE)}
    value = alt.Y("value:Q", title=None, scale=scale, axis=axis)
    layers = [
        alt.Chart(frame).mark_line(strokeWidth=1.8).encode(x=horizontal, y=value, **colour),
        alt.Chart(frame).mark_circle(size=22, opacity=1).encode(x=horizontal, y=value, **colour),
    ]
    if len(series) == 1:
        low = alt.Y("low:Q", title=None, scale=scale, axis=axis)
        layers.insert(0, alt.Chart(frame).mark_area(color=BLUE, opacity=0.15).encode(x=horizontal, y=low, y2="high:Q"))
    return _svg(alt.layer(*layers), title, height=HEIGHT + key_height)


def reliability(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Draws accuracy over confidence against the diagonal, and how many examples stand in each bin.

    Args:
      bins: `ece_bins` of results.json.
    """
    frame = pd.DataFrame([row for row in bins if row["n"]])
    axis = alt.Axis(labelExpr=PERCENT, values=[0, 0.25, 0.5, 0.75, 1], grid=True)
    horizontal = alt.X("lo:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=axis)
    bars = (
        alt.Chart(frame)
        .mark_bar(color=BLUE, opacity=0.35, stroke=BLUE, strokeWidth=1)
        .encode(x=horizontal, x2="hi:Q", y=alt.Y("accuracy:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=axis), y2=alt.datum(0))
    )
    points = alt.Chart(frame).mark_circle(color=BLUE, size=30, opacity=1).encode(x="confidence:Q", y="accuracy:Q")
    ends = alt.Chart(pd.DataFrame({"x": [0, 1], "y": [0, 1]}))
    diagonal = ends.mark_line(color=MUTED, strokeDash=[3, 3], strokeWidth=1.2).encode(x="x:Q", y="y:Q")
    heights = (
        alt.Chart(frame)
        .mark_bar(color=MUTED, opacity=0.5)
        .encode(
            x=alt.X("lo:Q", title="probability of the predicted class", scale=alt.Scale(domain=[0, 1]), axis=axis),
            x2="hi:Q",
            y=alt.Y("n:Q", title=None, axis=alt.Axis(tickCount=2, format="~s")),
            y2=alt.datum(0),
        )
        .properties(width=PLOT, height=50, title=_title("images in each bin"))
    )
    upper = (bars + diagonal + points).properties(width=PLOT, height=230, title=_title("share that was right"))
    return _svg(alt.vconcat(upper, heights, spacing=8))


def class_sizes(counts: np.ndarray) -> Markup:
    """Draws the number of images of each class, largest class first.

    Args:
      counts: int [C].
    """
    frame = pd.DataFrame({"rank": np.arange(len(counts)), "n": np.sort(counts)[::-1]})
    if len(frame) > _POINTS:  # more than there are pixels, and than Altair takes
        frame = frame.iloc[np.unique(np.linspace(0, len(frame) - 1, _POINTS).round().astype(int))]
    area = (
        alt.Chart(frame)
        .mark_area(color=BLUE, opacity=0.35, line={"color": BLUE, "strokeWidth": 1.5}, interpolate="step-after")
        .encode(
            x=alt.X("rank:Q", title="classes, largest first", axis=alt.Axis(grid=False, tickCount=6), scale=alt.Scale(nice=False)),
            y=alt.Y("n:Q", title=None, axis=alt.Axis(tickCount=5, format=",")),
        )
    )
    return _svg(area, "images in the class")


def condensed_confusion(confusion: np.ndarray) -> tuple[Markup, int]:
    """Draws the mistakes of a confusion matrix too large to print: similar classes next to each other, then in blocks.

    The order is that of the leaves of an average-linkage clustering in which two classes are the closer the more often one is taken for the
    other. A cell is the share of its row's images; right answers are left out.

    Args:
      confusion: int [C, C], rows = true.

    Returns:
      The chart, and the largest number of classes in a block.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage  # slow to import, and only data of many classes need it

    classes = len(confusion)
    support = np.maximum(confusion.sum(1), 1)
    rates = confusion / support[:, None]
    similarity = (rates + rates.T) / 2
    distance = 1 - similarity[np.triu_indices(classes, 1)]
    order = leaves_list(linkage(distance, "average"))
    wrong = np.array(confusion)[np.ix_(order, order)]
    np.fill_diagonal(wrong, 0)
    starts = np.linspace(0, classes, min(BLOCKS, classes) + 1).astype(int)[:-1]
    blocks = np.add.reduceat(np.add.reduceat(wrong, starts, 0), starts, 1)
    shares = blocks / np.add.reduceat(support[order], starts)[:, None]
    true, predicted = np.nonzero(shares)
    frame = pd.DataFrame({"true": true, "predicted": predicted, "share": shares[true, predicted]})
    cells = (
        alt.Chart(frame)
        .mark_rect(color=BLUE)
        .encode(
            x=alt.X("predicted:O", title="predicted", axis=None, scale=alt.Scale(domain=list(range(len(starts))), padding=0)),
            y=alt.Y("true:O", title="true", axis=None, scale=alt.Scale(domain=list(range(len(starts))), padding=0)),
            opacity=alt.Opacity(
                "share:Q",
                scale=alt.Scale(type="sqrt", domain=[0, float(shares.max()) or 1.0], range=[0, 1]),
                legend=None,
            ),
        )
    )
    paper = alt.Chart(pd.DataFrame({"x": [0]})).mark_rect(fill=LINE, opacity=0.45, x=0, x2="width", y=0, y2="height").encode()
    return _svg(paper + cells, "true ↓   predicted →", height=WIDTH + 20), int(np.ceil(classes / len(starts)))


def _thinned(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows[np.isfinite(rows["value"])]
    if len(rows) <= POINTS:
        return rows
    return rows.groupby(np.arange(len(rows)) * POINTS // len(rows), as_index=False).mean()


def _title(text: str, frame: Literal["bounds", "group"] = "group") -> alt.TitleParams:
    return alt.TitleParams(text, anchor="start", frame=frame, fontSize=12, fontWeight=600, color=INK, offset=8)


def _styled(
    chart: alt.TopLevelMixin,
    title: str | None = None,
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
    frame: Literal["bounds", "group"] = "group",
    background: str = "transparent",
) -> alt.TopLevelMixin:
    """Gives a chart the page's type and colours.

    Args:
      chart: without a size, unless it has no title.
      title: shown above it.
      width, height: of the whole chart in pixels, its axes and title included.
      frame: what the title stands above: the whole chart (bounds), or the area inside the axes (group).
      background: a colour.
    """
    if title:
        size = alt.AutoSizeParams(type="fit", contains="padding")
        chart = chart.properties(width=width, height=height, title=_title(title, frame), autosize=size)
    font = "system-ui, sans-serif"
    chart = chart.configure(font=font, background=background, padding=4, aria=False)
    chart = chart.configure_view(stroke=None).configure_legend(labelColor=INK, labelFontSize=11, symbolStrokeWidth=2.5, offset=4)
    return chart.configure_axis(
        labelColor=MUTED,
        titleColor=MUTED,
        labelFontSize=11,
        titleFontSize=11,
        titleFontWeight="normal",
        gridColor=LINE,
        domainColor=LINE,
        tickColor=LINE,
        labelFlush=False,
    )


def _svg(
    chart: alt.TopLevelMixin,
    title: str | None = None,
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
    frame: Literal["bounds", "group"] = "group",
) -> Markup:
    """Renders a chart; see `_styled`."""
    svg = vl_convert.vegalite_to_svg(_styled(chart, title, width=width, height=height, frame=frame).to_dict())
    svg = re.sub(r' (?:role|aria-roledescription)="[^"]*"', "", svg)  # of marks without a name; pages describe a chart as a whole
    # Vega numbers its ids through the whole process: number them anew, and apart from those of the page's other charts
    names = dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg))
    for number, name in enumerate(names):
        svg = re.sub(rf'(\bid="|url\(#|href="#){re.escape(name)}(?=["\)])', rf"\g<1>chart-id-{number}", svg)
    return Markup(svg.replace("chart-id-", f"c{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"))
