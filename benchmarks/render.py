"""From docs/performance.json to docs/performance.md and its plots. The text is a function of the data alone.

python -m benchmarks.render --out docs
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

NAMES = {
    "feast": "Feast on DuckDB",
    "asof": "DuckDB ASOF, by hand",
    "pandas": "pandas merge_asof",
    "feast_asof": "Feast, ASOF store",
    "in_process": "in process",
    "logged": "in process, with a prediction log",
    "over_http": "over HTTP, KServe",
}
TEMPLATE = Path(__file__).with_name("page.md")
GOALS = {"in_process": 1.5, "logged": 1.5, "over_http": 4}
"""For the p99 of online prediction, in milliseconds."""
PARTS = {
    "kernel_start": "kernel start",
    "imports": "imports",
    "imports_of_others": "imports of steps and servers",
    "rest": "the rest",
}


def shown(row: dict, name: str, digits: int = 2, unit: str = "") -> str:
    """A median and, where there were several rounds, the least and the greatest value."""
    text = f"{row[name]:,.{digits}f}{unit}"
    if f"{name}_range" not in row:
        return text
    least, greatest = row[f"{name}_range"]
    return f"{text} ({least:,.{digits}f} to {greatest:,.{digits}f})"


def goal(what: str, limit: float, unit: str, row: dict, name: str) -> list[str]:
    """A row of the summary."""
    verdict = "reached" if row[name] <= limit else "**missed**"
    return [what, f"at most {limit}{unit}", shown(row, name, 1, unit), verdict]


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def join_text(join: dict) -> tuple[list[list[str]], dict[str, str]]:
    """Rows of the summary, and what the section's template names."""
    runs, batches, plan = join["runs"], {row["contestant"]: row for row in join["batches"]}, join["plan"]
    last = {row["contestant"]: row for row in runs if row["rows"] == runs[-1]["rows"]}
    what = f"point-in-time join, {runs[-1]['questions']:,} x {runs[-1]['rows']:,} rows, beside ASOF by hand: "
    summary = [goal(what + NAMES[name], 1.0, " x", last[name], "ratio") for name in ("feast", "feast_asof")]
    header = ["questions x rows", "contestant", "seconds", "CPU seconds", "beside ASOF by hand", "peak MB"]
    body = []
    for row in runs:
        ratio = "1" if row["contestant"] == "asof" else shown(row, "ratio", 1)
        figures = [shown(row, "seconds"), shown(row, "cpu_seconds"), ratio, shown(row, "peak_mb", 0)]
        body.append([f"{row['questions']:,} x {row['rows']:,}", NAMES[row["contestant"]], *figures])
    by_ttl = [
        [f"{r['hours']} h", shown(r, "ratio", 1, " x"), shown(r, "cpu_ratio", 1, " x")] for r in join["ttl"]
    ]
    return summary, {
        "runs": table(header, body),
        "hours": f"{join['ttl'][-1]['hours']}",
        "per_question": f"{plan['ranked_rows'] / plan['questions']:.0f}",
        "questions": f"{plan['questions']:,}",
        "ranked": f"{plan['ranked_rows']:,}",
        "share": f"{plan['share_of_time']:.0%}",
        "note": join.get("note", ""),
        "ttl": table(
            ["time to live = hourly rows a question", "Feast beside ASOF by hand", "by CPU"], by_ttl
        ),
        "batches": shown(batches["feast_batches"], "peak_mb", 0, " MB"),
        "whole": shown(batches["feast"], "peak_mb", 0, " MB"),
        "slower": shown(batches["feast_batches"], "cpu_ratio", 1),
    }


def online_text(online: dict) -> tuple[list[list[str]], dict[str, str]]:
    """The same for online prediction."""
    runs = {row["contestant"]: row for row in online["runs"]}
    what = "online prediction {}, p99"
    summary = [goal(what.format(NAMES[n]), limit, " ms", runs[n], "p99_ms") for n, limit in GOALS.items()]
    body = [
        [NAMES[name], shown(row, "p50_ms"), shown(row, "p99_ms"), f"{row['requests']:,}"]
        for name, row in runs.items()
    ]
    return summary, {
        "runs": table(["way", "p50 ms", "p99 ms", "requests a round"], body),
        "http": shown(runs["over_http"], "p50_ratio", 1),
        "log_p50": shown(runs["logged"], "p50_ratio"),
        "log_p99": shown(runs["logged"], "p99_ratio"),
    }


def course_parts(notebook: dict) -> dict[str, float]:
    """Where a notebook's seconds went."""
    parts = {part: notebook[part] for part in PARTS if part != "rest"}
    return parts | {"rest": max(0.0, notebook["seconds"] - sum(parts.values()))}


def course_text(course: dict) -> tuple[list[list[str]], dict[str, str]]:
    """The same for the whole course."""
    notebooks = course["notebooks"]
    total = sum(row["seconds"] for row in notebooks)
    spent = {part: sum(course_parts(row)[part] for row in notebooks) for part in PARTS}
    row = {"ratio": total / (total - spent["rest"])}
    summary = [
        [f"`make run`, {len(notebooks)} notebooks", "", f"{total:.0f} s", ""],
        goal("the same beside kernel starts and all imports", 1.3, " x", row, "ratio"),
    ]
    body = []
    for row in notebooks:
        seconds = [f"{value:.1f}" for value in (row["seconds"], *course_parts(row).values())]
        body.append([row["notebook"], *seconds, str(row["processes"])])
    return summary, {
        "shares": ", ".join(f"{spent[part] / total:.0%} {name}" for part, name in PARTS.items()),
        "notebooks": table(["notebook", "seconds", *PARTS.values(), "processes beside the kernel"], body),
    }


SECTIONS = {"join": join_text, "online": online_text, "course": course_text}


def markdown(performance: dict) -> str:
    """The whole page: the template's sections that have figures, each with its own."""
    head, *templates = TEMPLATE.read_text().split("\n## ")
    machine, summary, sections = performance["machine"], [], []
    for (name, text), template in zip(SECTIONS.items(), templates, strict=True):
        if section := performance.get(name):
            rows, values = text(section)
            load = "Load average of the machine during the runs: {:.1f} to {:.1f}.".format(*section["load"])
            sections.append(template.format(load=load, **values))
            summary += rows
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    hardware = f"{machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}"
    values = {
        "machine": f"{hardware}, Python {machine['python']}; {versions}",
        "sizes": ", ".join(f"{name} {performance[name]['size']}" for name in SECTIONS if name in performance),
        "summary": table(["what", "goal", "measured", ""], summary),
    }
    return "\n## ".join([head.format(**values), *sections])


def limits(rows: list[dict], name: str) -> tuple[list[float], list[list[float]]]:
    """Medians, and how far least and greatest lie from them."""
    middle = [row[name] for row in rows]
    ranges = [row.get(f"{name}_range", [row[name]] * 2) for row in rows]
    below = [m - least for m, (least, _) in zip(middle, ranges, strict=True)]
    above = [greatest - m for m, (_, greatest) in zip(middle, ranges, strict=True)]
    return middle, [below, above]


def draw(performance: dict, folder: Path) -> None:
    """The plots that the page shows."""
    from helpers import plots

    folder.mkdir(parents=True, exist_ok=True)

    def save(figure, name: str) -> None:
        path = folder / f"performance_{name}.png"
        figure.savefig(path, format="png", facecolor="white", metadata={"Software": None})

    if join := performance.get("join"):
        figure, axes = plots.figure(width=9.5, height=3.6, columns=2)
        colors = {
            "feast": plots.BLUE,
            "asof": plots.GREEN,
            "pandas": plots.ORANGE,
            "feast_asof": plots.PURPLE,
        }
        labels = {"seconds": "seconds", "peak_mb": "peak MB of the process"}
        for ax, (value, label) in zip(axes, labels.items(), strict=True):
            for name, color in colors.items():
                rows = [row for row in join["runs"] if row["contestant"] == name]
                middle, error = limits(rows, value)
                style = {"color": color, "marker": "o", "markersize": 4, "capsize": 3, "label": NAMES[name]}
                ax.errorbar([row["rows"] for row in rows], middle, yerr=error, **style)
            xlabel = "feature rows (a tenth as many questions)"
            ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=label)
        axes[0].legend(frameon=False, fontsize=8)
        save(figure, "join")
        figure, ax = plots.figure(height=3.0)
        middle, error = limits(join["ttl"], "ratio")
        ax.errorbar([row["hours"] for row in join["ttl"]], middle, yerr=error, color=plots.BLUE, marker="o")
        ax.axhline(1.0, color=plots.RED, linestyle="--", linewidth=1.2, label="goal: 1.0")
        ax.legend(frameon=False, fontsize=8, labelcolor=plots.RED)
        ax.set(xlabel="valid rows a question (hours of the time to live)", ylabel="times ASOF by hand")
        ax.set_ylim(bottom=0)
        save(figure, "join_ttl")
    if online := performance.get("online"):
        colors = {"in_process": plots.GREEN, "logged": plots.ORANGE, "over_http": plots.BLUE}
        figure, ax = plots.figure(height=0.8 + 0.8 * len(online["runs"]))
        for row in online["runs"]:
            name = row["contestant"]
            middle, error = zip(*(limits([row], value) for value in ("p50_ms", "p99_ms")), strict=True)
            names = [f"{NAMES[name]}, {quantile}" for quantile in ("p50", "p99")]
            values, spread = [m[0] for m in middle], [[e[side][0] for e in error] for side in (0, 1)]
            drawn = ax.barh(names, values, xerr=spread, color=colors[name], ecolor=plots.MUTED, height=0.62)
            ax.bar_label(drawn, [f"{value:.1f}" for value in values], padding=4, color=plots.INK)
        ax.invert_yaxis()
        ax.set_xlabel("milliseconds: median of the rounds, least and greatest", color=plots.INK)
        save(figure, "online")
    if course := performance.get("course"):
        notebooks = {row["notebook"]: course_parts(row) for row in course["notebooks"]}
        figure, ax = plots.figure(width=8.5, height=1.1 + 0.4 * len(notebooks))
        left = [0.0] * len(notebooks)
        for (part, label), color in zip(PARTS.items(), plots.CYCLE, strict=False):
            seconds = [parts[part] for parts in notebooks.values()]
            ax.barh(list(notebooks), seconds, left=left, color=color, height=0.62, label=label)
            left = [start + more for start, more in zip(left, seconds, strict=True)]
        ax.invert_yaxis()
        ax.set_xlabel("seconds", color=plots.INK)
        ax.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
        save(figure, "course")


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "docs")
    arguments = parser.parse_args(argv)
    performance = json.loads((arguments.out / "performance.json").read_text())
    page = markdown(performance)
    (arguments.out / "performance.md").write_text(page)
    draw(performance, arguments.out / "pictures")
    print(page.split("\n## ")[0].strip())


if __name__ == "__main__":
    main()
