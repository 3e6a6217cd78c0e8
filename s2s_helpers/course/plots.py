"""Pictures of attention, training, accuracy and positions.

Every function takes tensors or arrays, draws with one set of colours that colour-blind readers can
tell apart (Okabe and Ito 2008; the map is viridis), writes at 9 points or more, names its axes, and
returns the matplotlib Axes, or the Figure where there is more than one.
"""

import math

import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
MAP = "viridis"
SMALL, MEDIUM, LARGE = 9, 10, 11  # points: ticks and legends, axis labels, titles


def _array(values, name: str, dimensions: int) -> np.ndarray:
    values = values.detach().float().cpu() if isinstance(values, torch.Tensor) else values
    array = np.asarray(values, dtype=float)
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(f"{name} must have {dimensions} dimensions, none empty, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds values that are not finite")
    return array


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def _finish(ax: Axes, title: str, x: str, y: str, *, grid: bool = True) -> Axes:
    ax.set_title(title, fontsize=LARGE)
    ax.set_xlabel(x, fontsize=MEDIUM)
    ax.set_ylabel(y, fontsize=MEDIUM)
    ax.tick_params(labelsize=SMALL)
    if grid:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="0.9")
        ax.set_axisbelow(True)
    return ax


def _colour_bar(image, axes, label: str) -> None:
    bar = image.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(label, fontsize=MEDIUM)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)


def _heatmap(ax: Axes, weights: np.ndarray, source_tokens, target_tokens, gold=None):
    """Draw weights (target, source) with a token at every row and column; outline gold cells."""
    image = ax.imshow(weights, cmap=MAP, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    # A price in dollars is no formula.
    ax.set_xticks(range(len(source_tokens)), source_tokens, rotation=90, parse_math=False)
    ax.set_yticks(range(len(target_tokens)), target_tokens, parse_math=False)
    ax.tick_params(length=0, labelsize=SMALL)
    ax.spines[:].set_visible(False)
    # White on both sides of the line, so that it stands out from every colour of the map.
    halo = [effects.withStroke(linewidth=4, foreground="white")]
    for source, target in gold or ():
        if not (0 <= source < len(source_tokens) and 0 <= target < len(target_tokens)):
            raise ValueError(
                f"the gold link (source {source}, target {target}) lies outside "
                f"{len(source_tokens)} source and {len(target_tokens)} target tokens"
            )
        corner = (source - 0.42, target - 0.42)
        cell = Rectangle(corner, 0.84, 0.84, fill=False, edgecolor=COLOURS[1], linewidth=2)
        cell.set_path_effects(halo)
        ax.add_patch(cell)
    return image


def _check_tokens(shape, source_tokens, target_tokens) -> None:
    if shape != (len(target_tokens), len(source_tokens)):
        raise ValueError(
            f"attention is {shape[0]} target x {shape[1]} source positions, but there are "
            f"{len(target_tokens)} target and {len(source_tokens)} source tokens"
        )


def attention_heatmap(
    attention, source_tokens, target_tokens, title="Attention", ax=None, gold=None
) -> Axes:
    """Draw where each target token looked: attention (target, source), rows that sum to 1.

    `gold` holds links (source position, target position), drawn as outlined cells. Raises
    ValueError where the tokens or links do not fit the matrix. After Bahdanau et al. 2015, fig. 3.
    """
    weights = _array(attention, "attention", 2)
    _check_tokens(weights.shape, source_tokens, target_tokens)
    size = (2.4 + 0.36 * len(source_tokens), 1.5 + 0.32 * len(target_tokens))
    ax = _axes(ax, size)
    image = _heatmap(ax, weights, source_tokens, target_tokens, gold)
    _colour_bar(image, ax, "attention weight")
    if gold:
        title += "\n(outlined: gold alignment)"
    return _finish(ax, title, "source", "target", grid=False)


def attention_grid(
    attention,
    source_tokens,
    target_tokens,
    title="Attention by layer and head",
    rows="layer",
    columns="head",
) -> Figure:
    """Draw attention (layers, heads, target, source) as one heatmap a head, a row for each layer.

    `rows` and `columns` say what the first two dimensions are. Raises ValueError where the tokens
    do not fit.
    """
    weights = _array(attention, "attention", 4)
    _check_tokens(weights.shape[2:], source_tokens, target_tokens)
    down, across = weights.shape[:2]
    size = (
        1.6 + across * max(1.5, 0.19 * len(source_tokens)),
        1.3 + down * 0.19 * len(target_tokens),
    )
    figure, axes = plt.subplots(
        down, across, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for row, column in np.ndindex(down, across):
        ax = axes[row, column]
        image = _heatmap(ax, weights[row, column], source_tokens, target_tokens)
        _finish(
            ax,
            f"{columns} {column + 1}" if row == 0 else "",
            "source" if row == down - 1 else "",
            f"{rows} {row + 1}\ntarget" if column == 0 else "",
            grid=False,
        )
    _colour_bar(image, axes, "attention weight")
    figure.suptitle(title, fontsize=LARGE)
    return figure


def training_curves(history, title="Training") -> Figure:
    """Draw a trainer's history: each quantity by epoch, learning rate and gradient norm by step.

    `history.epochs` and `history.steps` are lists of dicts, as `Seq2SeqTrainer.history` has them.
    `train_x` and `validation_x` share one picture. Raises ValueError for a history without epochs.
    """
    if not history.epochs:
        raise ValueError("the history has no epochs yet: call fit() first")
    panels: dict[str, dict[str, tuple[list, list]]] = {}
    for row in history.epochs:
        for key, value in row.items():
            if key in ("epoch", "seconds") or not isinstance(value, int | float):
                continue
            part, _, name = key.partition("_")
            if part not in ("train", "validation"):
                part, name = "validation", key
            xs, ys = panels.setdefault(name, {}).setdefault(part, ([], []))
            xs.append(row["epoch"])
            ys.append(value)
    by_epoch = len(panels)
    for key, name in (("lr", "learning rate"), ("grad_norm", "gradient norm")):
        rows = [row for row in history.steps if row.get(key) is not None]
        if rows:
            panels[name] = {"": ([row["step"] for row in rows], [row[key] for row in rows])}
    across = len(panels) if len(panels) < 4 else math.ceil(len(panels) / math.ceil(len(panels) / 3))
    down = math.ceil(len(panels) / across)
    figure, axes = plt.subplots(
        down, across, figsize=(3.3 * across, 2.7 * down), squeeze=False, layout="constrained"
    )
    styles = {"train": (COLOURS[0], "o", "-"), "validation": (COLOURS[1], "s", "--")}
    for index, (ax, (name, lines)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        for part, (xs, ys) in lines.items():
            if part:
                colour, marker, dash = styles[part]
                ax.plot(xs, ys, color=colour, marker=marker, ls=dash, ms=4, label=part)
            elif name == "learning rate":
                ax.plot(xs, ys, color=COLOURS[2])
            else:  # the norm jumps from step to step: pale, with its running mean over it
                window = np.ones(max(1, len(ys) // 50))
                mean = np.convolve(ys, window, "valid") / len(window)
                start = len(window) // 2
                ax.plot(xs, ys, color=COLOURS[2], linewidth=1, alpha=0.3)
                ax.plot(xs[start : start + len(mean)], mean, color=COLOURS[2])
        name = name.replace("_", " ")
        _finish(ax, name.capitalize(), "epoch" if index < by_epoch else "step", name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if index < by_epoch:
            ax.legend(fontsize=SMALL, frameon=False)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    figure.suptitle(title, fontsize=LARGE)
    return figure


def accuracy_by_length(
    lengths, correct, ax=None, label=None, bins=6, title="Accuracy by sentence length"
) -> Axes:
    """Draw the share of right sentences by length, with a band of one binomial standard error.

    lengths (sentences,) in tokens and correct (sentences,) of True and False. `bins` is a number of
    bins of about equal width, or their edges. Call it again with the same `ax` for another model.
    Raises ValueError where the two disagree in number. After Bahdanau et al. 2015, fig. 2.
    """
    lengths, correct = _array(lengths, "lengths", 1), _array(correct, "correct", 1)
    if len(lengths) != len(correct):
        raise ValueError(f"{len(lengths)} lengths but {len(correct)} judgements of right or wrong")
    if correct.min() < 0 or correct.max() > 1:
        raise ValueError("correct must hold True and False (or shares from 0 to 1)")
    if isinstance(bins, int):
        step = max(1, math.ceil((lengths.max() - lengths.min() + 1) / bins))
        bins = np.arange(lengths.min(), lengths.max() + step + 1, step)
    where = np.digitize(lengths, bins)
    centres, shares, errors = [], [], []
    for index in range(1, len(bins)):
        inside = where == index
        if inside.any():
            share = correct[inside].mean()
            centres.append(lengths[inside].mean())
            shares.append(share)
            errors.append(math.sqrt(share * (1 - share) / inside.sum()))
    if not centres:
        raise ValueError(f"no sentence has a length within the bins {list(bins)}")
    ax = _axes(ax, (6.5, 3.6))
    turn = len(ax.lines) % len(COLOURS)
    shares, errors = np.array(shares), np.array(errors)
    ax.plot(centres, shares, color=COLOURS[turn], marker=MARKERS[turn], ms=5, label=label)
    low, high = np.clip(shares - errors, 0, 1), np.clip(shares + errors, 0, 1)
    ax.fill_between(centres, low, high, color=COLOURS[turn], alpha=0.2, linewidth=0)
    ax.set_ylim(-0.02, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if label:
        ax.legend(fontsize=SMALL, frameon=False)
    return _finish(ax, title, "sentence length (tokens)", "sentences right")


def positional_encodings(table, title="Positional encodings") -> Figure:
    """Draw a table (positions, width): as a map, some of its columns, and how alike two rows are.

    The likeness is the cosine of two rows, averaged over all pairs at the same distance. See
    Vaswani et al. 2017, section 3.5.
    """
    table = _array(table, "table", 2)
    positions, width = table.shape
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    limit = np.abs(table).max() or 1.0
    image = left.imshow(
        table, cmap=MAP, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
    )
    _colour_bar(image, left, "value")
    _finish(left, "The table", "dimension", "position", grid=False)
    # Even columns: the sines, each of a longer wavelength than the one before.
    for turn, column in enumerate(dict.fromkeys(width * i // 8 // 2 * 2 for i in (0, 1, 2, 4))):
        middle.plot(table[:, column], color=COLOURS[turn], label=f"dimension {column}")
    middle.set_ylim(-1.1 * limit, 1.9 * limit)  # room for the legend
    middle.legend(fontsize=SMALL, loc="upper center", ncols=2, frameon=False, handlelength=1)
    _finish(middle, "Single dimensions", "position", "value")
    rows = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    likeness = rows @ rows.T
    right.plot([np.diagonal(likeness, k).mean() for k in range(positions)], color=COLOURS[0])
    _finish(right, "Likeness of two positions", "distance (positions)", "mean cosine")
    figure.suptitle(title, fontsize=LARGE)
    return figure


def bars(labels, values, errors=None, title="", y="", ax=None, form="{:.2f}") -> Axes:
    """Draw one bar a label, its value written above, with error bars if `errors` are given.

    `values` (and `errors`) are numbers, one a label, or a dict of such lists by name, drawn as
    groups with a legend. `form` is how a value is written. Raises ValueError where there are not as
    many numbers as labels.
    """
    grouped = isinstance(values, dict)
    series = values if grouped else {"": values}
    errors = errors if grouped and errors else {"": errors}
    ax = _axes(ax, (max(4.5, 1.1 * len(labels) * max(1, 0.7 * len(series))), 3.6))
    width = 0.75 / len(series)
    for turn, (name, numbers) in enumerate(series.items()):
        numbers = _array(numbers, f"values {name}".strip(), 1)
        spread = errors.get(name)
        spread = None if spread is None else _array(spread, f"errors {name}".strip(), 1)
        if len(numbers) != len(labels) or (spread is not None and len(spread) != len(labels)):
            raise ValueError(f"there are {len(labels)} labels, but not as many values or errors")
        middles = np.arange(len(labels)) + (turn - (len(series) - 1) / 2) * width
        caps = {"capsize": 4, "ecolor": "0.25", "error_kw": {"elinewidth": 1.2}}
        drawn = ax.bar(
            middles, numbers, width * 0.94, yerr=spread, color=COLOURS[turn], label=name, **caps
        )
        texts = [form.format(number) for number in numbers]
        ax.bar_label(drawn, texts, fontsize=SMALL, padding=2)
    ax.set_xticks(range(len(labels)), labels, parse_math=False)
    ax.margins(y=0.12)
    if grouped:
        ax.legend(
            fontsize=SMALL,
            frameon=False,
            ncols=len(series),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.12),
        )
    return _finish(ax, title, "", y)
