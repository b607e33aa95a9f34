"""Makes report.html out of a run's folder: one file, nothing fetched from anywhere.

Its scripts sort tables, open pictures, draw the map and work out thresholds; without them all else can be read. Names and paths come from
the user's data, so that nothing reaches the page unescaped but this package's own style sheets, scripts and charts.
"""

import base64
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from imgclf import config as config_lib
from imgclf import formatting
from imgclf.errors import UserError
from imgclf.evaluation import metrics
from imgclf.evaluation.intervals import wilson
from imgclf.reporting import class_table, confusion, explanations, feature_map, leaderboard, pages, plots, samples, thresholds

OPEN_CLASSES = 20  # more than these, and tables by class start folded
PRINTED_CLASSES = 200  # more than these, and tables of all classes stay off paper, where they would be dozens of sheets
ROWS = 200  # of a list of files; the run's own files hold them all
SPLITS = ("train", "val", "test")
STYLES = ("report.css", "explanations.css", "feature_map.css")
SCRIPTS = ("unpacked.js", "sorting.js", "class_table.js", "confusion.js", "thresholds.js", "feature_map.js")


_FACTS_IN_A_ROW = 8  # at most; nine are shown as five and four


def write_report(run: Path) -> Path:
    """Writes `run`/report.html from the run's other files; those that are missing leave their section out or say so.

    Args:
      run: a run's folder (see `experiment`); read are config.json, environment.json, dataset.parquet, quarantine.csv, audit.json,
        metrics.jsonl, predictions.csv, results.json and samples/.

    Returns:
      The path of report.html; it is replaced in one move, so that a reader never sees half of it.

    Raises:
      UserError: if there is no such folder.
    """
    run = Path(run)
    if not run.is_dir():
        raise UserError(f"There is no folder {run}: name a run's, such as runs/photos.")
    context = _context(run) | pages.script(*SCRIPTS) | {"style": pages.Markup("").join(map(pages.source, STYLES))}
    return pages.write(run / "report.html", "report.html.j2", context)


def _context(run: Path) -> dict[str, Any]:
    config = _by_field(_json(run / "config.json", {}))
    results = _json(run / "results.json", {})
    audit = _json(run / "audit.json", {})
    index = _json(run / "samples" / "index.json", {})
    table = pd.read_parquet(run / "dataset.parquet") if (run / "dataset.parquet").exists() else None
    quarantine = _csv(run / "quarantine.csv")
    predictions = _csv(run / "predictions.csv")
    names = results.get("class_names") or list(results.get("per_class", {}))
    if not names and table is not None:
        names = sorted(table["class_name"].unique())
    title, source = config.get("name") or run.resolve().name, _source(config)
    return {
        "title": title,
        "source": source if source != title else "",
        "results": results,
        "headline": _headline(results, table),
        "facts": (facts := _facts(results, table)),
        "fact_columns": math.ceil(len(facts) / math.ceil(max(1, len(facts)) / _FACTS_IN_A_ROW)),
        "leaderboard": leaderboard.section(run),
        "classes": _class_counts(table, names),
        "samples": _sample_grid(run, index),
        "curves": _curves(_metrics(run / "metrics.jsonl"), results),
        "best_epoch": results.get("best_epoch"),
        "confusion": (matrix := confusion.section(results, names)),
        "cells": confusion.pictures(index, matrix, lambda image_id: _picture(run, index, image_id)) if matrix else None,
        "previous": _previous(run, index),
        "thresholds": thresholds.section(predictions, names),
        "map": feature_map.of_run(run),
        "per_class": (per_class := _per_class(results)),
        "search": class_table.section(table, per_class, results.get("confusion"), names),
        "reliability": _reliability(results),
        "mistakes": _mistakes(run, index, predictions),
        "selection": results.get("selection"),
        "quarantine": _quarantine(quarantine, audit),
        "audit": _audit(run, index, audit),
        "config": _config(config),
        "environment": _environment(_json(run / "environment.json", {})),
        "fold": len(names) > OPEN_CLASSES,
        "printed": len(names) <= PRINTED_CLASSES,
    }


# ---- the run's files ----


def _json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def _csv(path: Path) -> pd.DataFrame | None:
    if not path.exists():
        return None
    # as text: a class may be called "NA" or "007"
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return frame.astype({"probability": float}) if "probability" in frame else frame


def _metrics(path: Path) -> pd.DataFrame:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if lines and not lines[-1].endswith("\n"):  # the run is being written, or was killed
        lines.pop()
    return pd.DataFrame([json.loads(line) for line in lines])


def _by_field(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"data.split.seed": 0, …}` from the nested objects of a config.json."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _by_field(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


# ---- the sections ----


def _source(config: dict[str, Any]) -> str:
    source = config.get("data.source", "")
    return str({"tfds": config.get("data.tfds.name"), "digits": "built-in digits"}.get(source) or config.get("data.path") or source)


def _headline(results: dict, table: pd.DataFrame | None) -> dict | None:
    if "top1" not in results:
        return None
    support = {name: row["support"] for name, row in results["per_class"].items()}
    train = table.loc[table["split"] == "train", "class_name"].value_counts() if table is not None else pd.Series(support)
    if train.empty:
        train = pd.Series(support)
    common = min(train.index[train == train.max()])  # of several equally common ones, the first by name
    low, high = results["top1_ci95"]
    sentence = metrics.headline(results)
    return {
        "sentence": sentence,
        "rest": sentence.removeprefix(formatting.percent(results["top1"])),
        "top1": results["top1"],
        "low": low,
        "high": high,
        "common": common,
        "baseline": support.get(common, 0) / results["n"],
        "split": results.get("split", ""),
        "notes": results.get("notes", []),
    }


def _facts(results: dict, table: pd.DataFrame | None) -> list[tuple[str, str, str]]:
    """Returns (label, value, remark) of the small figures under the headline."""
    facts = []
    if "macro_f1" in results:
        if "balanced_accuracy" in results:
            bounds = f"mean of the classes' recalls, 95{formatting.NBSP}% interval {formatting.interval(results['balanced_accuracy_ci95'])}"
            facts.append(("balanced accuracy", formatting.percent(results["balanced_accuracy"]), bounds))
        facts.append(("macro F1", formatting.percent(results["macro_f1"]), "mean over classes"))
        if len(results["per_class"]) > 5:
            facts.append(("top-5", formatting.percent(results["top5"]), "truth among the first five"))
        area = results.get("roc_auc")
        facts.append(("ROC AUC", formatting.NONE if area is None else f"{area:.4f}", results.get("roc_auc_note") or "one against the rest"))
        facts.append(("loss", formatting.number(results["loss"]), "negative log-likelihood"))
        facts.append(("calibration error", formatting.percent(results["ece"]), "ECE, 15 bins"))
    if table is not None:
        facts.append(("images", f"{len(table):,}", f"of {formatting.count(table['class_name'].nunique(), 'class', 'classes')}"))
    if "params_total" in results:
        trainable = results.get("params_trainable", results["params_total"])
        remark = "all trainable" if trainable == results["params_total"] else f"{trainable:,} trainable"
        facts.append(("parameters", f"{results['params_total']:,}", remark))
    if "train_seconds" in results:
        work = f", {formatting.flops(results['train_flops'])}" if results.get("train_flops") else ""
        facts.append(("training", formatting.duration(results["train_seconds"]), formatting.count(results.get("steps", 0), "step") + work))
    return facts


def _class_counts(table: pd.DataFrame | None, names: list[str]) -> dict | None:
    if table is None or table.empty:
        return None
    counts = pd.crosstab(table["class_name"], table["split"]).reindex(names, fill_value=0)
    splits = [split for split in SPLITS if split in counts] + sorted(set(map(str, counts)) - set(SPLITS))
    largest = max(1, int(counts.to_numpy().sum(1).max()))
    rows = []
    for name, each in zip(names, counts[splits].to_numpy().tolist(), strict=True):
        rows.append({"name": name, "counts": each, "total": sum(each), "widths": [100 * n / largest for n in each]})
    chart = plots.class_sizes(counts.to_numpy().sum(1)) if len(names) > confusion.MATRIX_CLASSES else None
    if len(names) > class_table.MANY:
        rows = sorted(rows, key=lambda row: -row["total"])
        rows = [*rows[: class_table.EXTREMES], *rows[-class_table.EXTREMES :]]
    return {"splits": splits, "rows": rows, "number": len(names), "totals": [int(counts[split].sum()) for split in splits], "chart": chart}


def _sample_grid(run: Path, index: dict) -> dict | None:
    if not index.get("grid"):
        return None
    rows = [{"name": name, "pictures": [_picture(run, index, i) for i in ids]} for name, ids in index["grid"].items()]
    columns = max(len(row["pictures"]) for row in rows)
    return {"rows": rows, "columns": columns, "unreadable": len(index.get("unreadable", {}))}


def _picture(run: Path, index: dict, image_id: str) -> dict:
    """Returns {id, src, small}; src is None where there is no thumbnail."""
    known = index.get("thumbnails", {}).get(image_id)
    path = run / "samples" / Path(known["file"]).name if known else None
    if path is None or not path.exists():
        return {"id": image_id, "src": None, "small": False}
    data = base64.b64encode(path.read_bytes()).decode()
    small = max(known["width"], known["height"]) <= samples.LOSSLESS_EDGE
    return {"id": image_id, "src": f"data:image/webp;base64,{data}", "small": small}


def _curves(log: pd.DataFrame, results: dict) -> list[dict]:
    charts = []
    panels = [
        ("loss", {"train": "train_loss", "val": "val_loss"}, {}),
        ("top-1", {"train": "train_top1", "val": "val_top1"}, {"share": True}),
        ("learning rate", {"learning rate": "learning_rate"}, {}),
    ]
    best = results.get("best_epoch")
    for title, columns, options in panels:
        series = {}
        for name, column in columns.items():
            if column in log and log[column].notna().any():
                rows = log[["step", "epoch", column]].dropna().drop_duplicates("step", keep="last")
                series[name] = rows.rename(columns={column: "value"})[["epoch", "value"]]
        if series:
            last = ", ".join(f"{name} ends at {formatting.number(float(rows['value'].iloc[-1]))}" for name, rows in series.items())
            svg = plots.curves(series, title, best if title != "learning rate" else None, **options)
            charts.append({"svg": svg, "alt": f"{title} over epochs: {last}"})
    return charts


def _per_class(results: dict) -> list[dict]:
    rows = []
    for name, row in results.get("per_class", {}).items():
        support = row["support"]
        bounds = wilson(round(row["recall"] * support), support) if support else None
        rows.append({"name": name, **row, "bounds": bounds})
    return sorted(rows, key=lambda row: (row["recall"] is None, row["recall"] or 0.0, row["name"]))


def _reliability(results: dict) -> dict | None:
    bins = results.get("ece_bins")
    if not bins:
        return None
    n = sum(row["n"] for row in bins)
    confidence = sum(row["n"] * row["confidence"] for row in bins if row["n"]) / n
    section = {"svg": plots.reliability(bins), "bins": bins, "ece": results["ece"], "confidence": confidence, "top1": results["top1"]}
    known = {"temperature": results.get("temperature"), "fitted": results.get("calibration"), "sets": results.get("conformal")}
    return section | known  # None in runs that are older than these entries


def _mistakes(run: Path, index: dict, predictions: pd.DataFrame | None) -> dict | None:
    if predictions is None:
        return None
    wrong = samples.most_confident_mistakes(predictions, len(predictions))
    rows = wrong.head(samples.MISTAKES).to_dict("records")
    said, explained = explanations.of_run(run) or (None, {})
    cards = [
        {
            **_picture(run, index, row["id"]),
            **{key: row[key] for key in ("true", "predicted", "probability")},
            **explained.get(row["id"], {}),
        }
        for row in rows
    ]
    explained_first = [card for card in cards if "maps" in card]
    return {"explained": explained_first, "said": said, "cards": cards[len(explained_first) :], "wrong": len(wrong), "n": len(predictions)}


def _previous(run: Path, index: dict) -> dict | None:
    """The comparison with the last run beside this one, see `workflows.previous`, with the pictures of what has changed."""
    found = _json(run / "previous.json", None)
    if found is None:
        return None
    pictures = {name: [_picture(run, index, image_id) for image_id in found[name]] for name in ("mended", "broken")}
    return found | {name: [picture for picture in own if picture["src"]] for name, own in pictures.items()}


def _quarantine(frame: pd.DataFrame | None, audit: dict) -> dict | None:
    if frame is None:
        return None
    reasons = frame["reason"].value_counts() if len(frame) else pd.Series(dtype=int)
    return {
        "n": len(frame),
        "reasons": [(str(reason).replace("_", " "), int(n)) for reason, n in reasons.items()],
        "rows": frame.head(ROWS).to_dict("records"),
        "ignored": audit.get("ignored", {}),
    }


def _audit(run: Path, index: dict, audit: dict) -> dict | None:
    if not audit:
        return None

    def pictures(ids: list[str]) -> list[dict]:
        return [_picture(run, index, i) for i in ids[: samples.GROUP_IMAGES]]

    kinds = []
    for key, name in (("exact_duplicates", "exact copies"), ("near_duplicates", "near duplicates")):
        found = {"within": 0, "across": 0, "groups": []} | audit.get(key, {})
        groups = [(pictures(ids), max(0, len(ids) - samples.GROUP_IMAGES)) for ids in found["groups"][: samples.GROUPS]]
        total = max(found["within"] + found["across"], len(found["groups"]))  # the list may be cut short
        kinds.append({"name": name, "within": found["within"], "across": found["across"], "n": total, "groups": groups})
    across, conflicts, dropped = (audit.get(key, []) for key in ("groups_across_splits", "label_conflicts", "dropped"))
    counts = {"groups_across_splits": len(across), "label_conflicts": len(conflicts), "dropped": len(dropped)} | audit.get("counts", {})
    return {
        "mode": audit.get("mode", ""),
        "kinds": kinds,
        "across": [
            {"group": row["group"], "splits": ", ".join(f"{n} {split}" for split, n in row["splits"].items())} for row in across[:ROWS]
        ],
        "across_count": counts["groups_across_splits"],
        "conflicts": [{"pictures": pictures(one["ids"]), "classes": one["classes"]} for one in conflicts[: samples.GROUPS]],
        "conflict_count": counts["label_conflicts"],
        "scenes": audit.get("scenes"),  # None where they weren't looked for
        "scenes_page": "scenes.html" if (run / "scenes.html").exists() else None,
        "dropped": dropped[:ROWS],
        "dropped_count": counts["dropped"],
        "clean": not any(counts.values()) and not any(kind["n"] for kind in kinds),
    }


def _config(config: dict[str, Any]) -> dict | None:
    if not config:
        return None
    default = _by_field(json.loads(config_lib.to_json(config_lib.default_config())))
    rows = [{"name": name, "value": json.dumps(value, ensure_ascii=False)} for name, value in config.items()]
    changed = [row for row in rows if row["name"] not in default or default[row["name"]] != config[row["name"]]]
    return {"changed": changed, "rest": [row for row in rows if row not in changed]}


def _environment(environment: dict) -> list[tuple[str, str]]:
    rows = []
    for key, value in environment.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        elif isinstance(value, list):
            value = ", ".join(str(item) for item in value)
        if value not in (None, ""):
            rows.append((key.replace("_", " "), str(value)))
    return rows
