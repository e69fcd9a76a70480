"""From docs/performance.json to docs/performance.md and the plots beside it. The text is a function of the data alone.

python -m benchmarks.render --out docs
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import median

NAMES = {
    "feast": "Feast on DuckDB",
    "asof": "DuckDB ASOF, by hand",
    "pandas": "pandas merge_asof",
    "feast_asof": "Feast, ASOF store",
    "seed": "the post's loop (dask)",
    "seed_duckdb": "the post's loop (DuckDB)",
    "workshop": "notebook 04's way",
    "in_process": "in process",
    "logged": "in process, with a prediction log",
    "over_http": "over HTTP, KServe",
}


def spread(values: list[float], digits: int = 2, unit: str = "") -> str:
    """Median and, of several, least and greatest."""
    values = [float(value) for value in values]
    text = f"{median(values):,.{digits}f}{unit}"
    return text if len(values) == 1 else f"{text} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def by_round(runs: list[dict], contestant: str, value: str) -> dict[int, float]:
    """A contestant's value by round."""
    return {run["round"]: run[value] for run in runs if run["contestant"] == contestant}


def ratios(runs: list[dict], above: str, below: str, value: str = "seconds") -> list[float]:
    """One ratio per round: both of a round were measured one after the other."""
    first, second = by_round(runs, above, value), by_round(runs, below, value)
    return [first[number] / second[number] for number in sorted(first) if number in second]


def by_data(runs: list[dict]) -> dict[str, list[dict]]:
    """The runs of the drivers and, where they are measured, of the flights. Figures of an earlier version of the benchmark name no data: they are the drivers'."""
    found: dict[str, list[dict]] = {"drivers": []}
    for run in runs:
        found.setdefault(run.get("data", "drivers"), []).append(run)
    return found


def called(data: str, contestant: str) -> str:
    """The name of a bar or a row among those of both data sets."""
    return NAMES[contestant] if data == "drivers" else f"{data}: {NAMES[contestant]}"


def verdict(met: bool) -> str:
    """What the summary says of a goal."""
    return "reached" if met else "**missed**"


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A markdown table."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(r) + " |" for r in rows),
    ]


def loads(runs: list[dict]) -> str:
    """How busy the machine was."""
    found = [run["load"] for run in runs]
    return f"Load average of the machine while this ran: {min(found):.1f} to {max(found):.1f}."


class Join:
    """The join's runs by size and by time to live."""

    def __init__(self, measured: dict) -> None:
        self.runs, self.plan = measured["runs"], measured["plan"]
        by_size = [run for run in self.runs if run["series"] == "size"]
        self.sizes = sorted({(run["questions"], run["rows"]) for run in by_size})
        self.of_size = {
            size: [r for r in by_size if (r["questions"], r["rows"]) == size] for size in self.sizes
        }
        self.batches = [run for run in self.runs if run["series"] == "batches"]
        by_ttl = [run for run in self.runs if run["series"] == "time to live"]
        self.hours = sorted({run["ttl_hours"] for run in by_ttl})
        self.of_ttl = {hours: [run for run in by_ttl if run["ttl_hours"] == hours] for hours in self.hours}
        self.largest = self.of_size[self.sizes[-1]]

    def equal(self) -> bool:
        groups: dict[tuple, set] = {}
        for run in self.runs:
            groups.setdefault((run["questions"], run["rows"], run["ttl_hours"]), set()).add(run["digest"])
        return all(len(found) == 1 for found in groups.values())

    def summary(self) -> list[list[str]]:
        questions, rows = self.sizes[-1]
        where = f"point-in-time join, {questions:,} x {rows:,} rows"
        by_hand, pandas = ratios(self.largest, "feast", "asof"), ratios(self.largest, "feast", "pandas")
        patched = ratios(self.largest, "feast_asof", "asof")
        return [
            [
                f"{where}: Feast on DuckDB beside ASOF by hand",
                "at most 1.0 x",
                spread(by_hand, 1, " x"),
                verdict(median(by_hand) <= 1.0),
            ],
            [
                f"{where}: Feast on DuckDB beside pandas",
                "below 1 x",
                spread(pandas, 1, " x"),
                verdict(median(pandas) < 1),
            ],
            [
                "the same call on the ASOF store, beside ASOF by hand",
                "at most 1.0 x",
                spread(patched, 1, " x"),
                verdict(median(patched) <= 1.0),
            ],
        ]

    def text(self) -> list[str]:
        lines = ["## Point-in-time join", ""]
        lines += [
            "From the questions in memory to the answer in memory, the hourly table in a parquet file, each contestant in a process of its own; imports, and a first join of ten questions, not counted."
        ]
        lines += [
            "DuckDB may use 8 GB in each (the process around it needs some more); what does not fit spills to disk. Seconds and CPU seconds are medians (least to greatest)."
        ]
        equal = (
            "At each size all contestants gave equal values, nulls included."
            if self.equal()
            else "**The contestants' values differ.**"
        )
        lines += [equal + " " + loads([run for run in self.runs if run not in self.batches]), ""]
        rows = []
        for (questions, count), runs in self.of_size.items():
            for name in dict.fromkeys(
                run["contestant"] for run in sorted(runs, key=lambda r: list(NAMES).index(r["contestant"]))
            ):
                mine = [run for run in runs if run["contestant"] == name]
                figures = [spread([run[value] for run in mine]) for value in ("seconds", "cpu_seconds")]
                peak = spread([run["peak_mb"] for run in mine], 0)
                beside = spread(ratios(runs, name, "asof"), 1) if name != "asof" else "1"
                rows.append([f"{questions:,} x {count:,}", NAMES[name], *figures, beside, peak])
        header = [
            "questions x rows",
            "contestant",
            "seconds",
            "CPU seconds",
            "beside ASOF by hand",
            "peak MB",
        ]
        lines += [*table(header, rows), ""]
        lines += [
            "![Seconds and peak memory of the four contestants against the size of the join, on logarithmic axes.](pictures/performance_join.png)",
            "",
        ]
        window = self.plan["share_of_operator_time"].get("WINDOW", 0)
        pairs = self.plan["ranked_rows"] / self.plan["questions"]
        lines += [
            "**Where Feast's time goes.** Its DuckDB store joins each question with *every* row that is valid for it, then ranks them and keeps the first."
        ]
        lines += [
            f"With hourly rows and a time to live of a week that is {pairs:.0f} rows a question: DuckDB's own profile (`EXPLAIN ANALYZE`, {self.plan['questions']:,} questions)"
        ]
        lines += [
            f"counts {self.plan['ranked_rows']:,} ranked rows, and spends {window:.0%} of its operators' time on ranking them. An ASOF join keeps one."
        ]
        lines += [
            "`Feast, ASOF store` is the same call of Feast on [lifecycle/asof_store.py](../lifecycle/asof_store.py), which inherits Feast's DuckDB store and replaces that plan by an ASOF join; its tests compare the two on generated tables. The figures above are of an earlier copy of its plan; three turns of the store itself at the largest size, at a load of 2 to 3, took 0.5 to 0.7 times the join by hand. The rest of Feast is not what costs."
        ]
        lines += ["So the cost depends on how many rows are valid for a question:", ""]
        rows = []
        for hours, runs in self.of_ttl.items():
            seconds, cpu = ratios(runs, "feast", "asof"), ratios(runs, "feast", "asof", "cpu_seconds")
            rows.append([f"{hours} h", spread(seconds, 1, " x"), spread(cpu, 1, " x")])
        lines += [
            *table(["time to live = hourly rows a question", "Feast beside ASOF by hand", "by CPU"], rows),
            "",
        ]
        lines += [
            "![Feast's time as a multiple of the hand-written join's, against the number of valid rows a question: it rises steadily.](pictures/performance_join_ttl.png)",
            "",
        ]
        whole, parts = (
            [run for run in self.batches if run["contestant"] == name] for name in ("feast", "feast_batches")
        )
        peaks = [spread([run["peak_mb"] for run in mine], 0, " MB") for mine in (whole, parts)]
        slower = spread(ratios(self.batches, "feast_batches", "feast", "cpu_seconds"), 1)
        lines += [
            "What to do about it: choose the ASOF store in `feature_store.yaml` ([notebook 10](../notebooks/10_leave_the_laptop.ipynb)). On Feast's own: a time to live no longer than the model needs, or a daily view for what changes slowly. Both change what the features mean, so they are decisions about the model."
        ]
        lines += [
            f"Asking in batches changes no value and lowers the peak: in ten calls, {whole[0]['questions']:,} questions take {peaks[1]} in place of {peaks[0]}, at {slower} times the CPU seconds."
        ]
        return lines


WAYS = ("seed", "seed_duckdb", "workshop")
PARTS = ("retrieve", "fit and score", "log the model", "else")


def selection_text(measured: list[dict]) -> tuple[list[list[str]], list[str]]:
    """Rows of the summary and the section on feature selection."""
    both = by_data(measured)
    runs, flights = both["drivers"], both.get("flights", [])
    gain, by_cpu = ratios(runs, "seed", "workshop"), ratios(runs, "seed", "workshop", "cpu_seconds")
    names = len(runs[0]["subsets"])
    rows = [
        [
            f"the post's feature selection beside notebook 04's way, {names} subsets",
            "at least 20 x",
            spread(gain, 1, " x"),
            verdict(median(gain) >= 20),
        ]
    ]
    lines = ["## Feature selection", ""]
    lines += [
        "The post's loop as printed, mended where it does not run or warns: it retrieves for each subset (from Feast's default store, dask) and logs a model for each. Notebook 04 retrieves once"
    ]
    lines += [
        "and logs one, the winner's, and does more in between: eight times the fits (blocks of cross-validation) and five metrics. Imports are not counted."
    ]
    lines += [f"By CPU seconds the ratio is {spread(by_cpu, 1)}. {loads(measured)}"]
    if flights:
        names = len(flights[0]["subsets"])
        gain, by_cpu = (
            ratios(flights, "seed_duckdb", "workshop", value) for value in ("seconds", "cpu_seconds")
        )
        rows += [
            [
                f"the same on the flights of notebook 12, {names} candidates, both on DuckDB",
                "",
                spread(gain, 1, " x"),
                "",
            ]
        ]
        lines += [
            f"On the flights of notebook 12 the same two ways choose among its {names} candidates, from several views at once: on DuckDB the post's loop takes {spread(gain, 1)} times the seconds, and {spread(by_cpu, 1)} times the CPU seconds."
        ]
        lines += [
            "Feast's default store is left out there: it joins each label with every row of its airport before it chooses one, and for the second candidate it had not answered after almost four minutes of CPU time, at 7 GB."
        ]
    body = []
    for data, of_data in both.items():
        for name in WAYS:
            mine = [run for run in of_data if run["contestant"] == name]
            if not mine:
                continue
            answered = max(subset["rows"] for run in mine for subset in run["subsets"].values())
            body.append(
                [
                    data,
                    NAMES[name],
                    spread([run["seconds"] for run in mine], 1),
                    *(spread([r["parts"].get(p, 0) for r in mine], 1) for p in PARTS),
                    f"{answered:,} of {mine[0]['labels']:,}",
                ]
            )
    lines += ["", *table(["data", "contestant", "seconds", *PARTS, "rows of the labels"], body), ""]
    lines += [
        "![Seconds of the three ways as stacked bars: in the post's loop most of the time goes into logging models and retrieving again.](pictures/performance_selection.png)",
        "",
    ]
    lines += [
        "Logging a model without naming its requirements starts a second Python that imports MLflow and loads the model, to find out what it needs. The default store is slower and loses rows (notebook 02);"
    ]
    lines += ["on DuckDB the post's loop trains on the same rows as notebook 04, compared by hash."]
    if flights:
        lines += [
            "On the flights it retrieves the same values, too. It drops the rows that lack a value for each candidate apart; with one retrieval all candidates are scored on the rows that are complete for all of them."
        ]
    return rows, lines


ONLINE = (("in_process", 1.5), ("logged", 1.5), ("over_http", 4))
"""The ways of online prediction, and the goal for the p99 of each on the drivers, in milliseconds."""


def online_text(measured: list[dict]) -> tuple[list[list[str]], list[str]]:
    """The same for online prediction."""
    both = by_data(measured)
    rows, body = [], []
    for data, runs in both.items():
        for name, goal in ONLINE:
            mine = [run for run in runs if run["contestant"] == name]
            if not mine:  # the flights have no prediction log, and figures of an earlier version of the benchmark neither
                continue
            p99 = [run["p99_ms"] for run in mine]
            if data == "drivers":
                goals = [f"under {goal} ms", spread(p99, 1, " ms"), verdict(median(p99) < goal)]
                rows += [[f"online prediction {NAMES[name]}, p99", *goals]]
            else:
                rows += [
                    [f"the same on the {data} of notebook 12, {NAMES[name]}", "", spread(p99, 1, " ms"), ""]
                ]
            figures = [spread([run["p50_ms"] for run in mine]), spread(p99), f"{mine[0]['requests']:,}"]
            body.append([data, NAMES[name], *figures])
    runs, flights = both["drivers"], both.get("flights", [])
    lines = ["## Online prediction", ""]
    lines += [
        "One driver a request: features from the SQLite online store, checks of age, the model's probability. One client, one kept connection. All gave equal scores for every driver."
    ]
    lines += [
        f"HTTP takes {spread(ratios(runs, 'over_http', 'in_process', 'p50_ms'), 1)} times the time in process at p50. {loads(measured)}"
    ]
    if any(run["contestant"] == "logged" for run in runs):
        lines += [
            f"The prediction log takes {spread(ratios(runs, 'logged', 'in_process', 'p50_ms'), 2)} times the time at p50 and {spread(ratios(runs, 'logged', 'in_process', 'p99_ms'), 2)} times at p99, with requests that come without a pause: the thread that writes it takes turns with the one that answers."
        ]
    if flights:
        http, log = (
            spread(ratios(flights, name, "in_process", "p50_ms"), 2) for name in ("over_http", "logged")
        )
        lines += [
            "A request about the flights of notebook 12 names an airport and a carrier, both text, and the scheduled hour: three feature views are read, and a fourth computes from the hour. All gave equal scores for every pair;"
        ]
        lines += [f"at p50 HTTP takes {http} times the time in process, and the prediction log {log} times."]
    lines += [
        "A p99 says as much about the machine's other work as about the server: read it with the load.",
        "",
    ]
    lines += [*table(["data", "way", "p50 ms", "p99 ms", "requests a round"], body), ""]
    lines += [
        "![p50 and p99 in milliseconds, in process and over HTTP, with the spread between rounds.](pictures/performance_online.png)"
    ]
    return rows, lines


def sweep_text(runs: list[dict]) -> tuple[list[list[str]], list[str]]:
    """The same for the sweep."""
    trials = runs[0]["trials"]

    def cost(name: str, value: str) -> list[float]:
        with_it, without = by_round(runs, name, value), by_round(runs, "optuna", value)
        return [(with_it[number] - without[number]) / trials * 1000 for number in with_it]

    cpu = cost("optuna_mlflow", "cpu_seconds")
    rows = [
        [
            "MLflow's cost in a sweep, CPU a trial",
            "at most 40 ms",
            spread(cpu, 1, " ms"),
            verdict(median(cpu) <= 40),
        ]
    ]
    lines = ["## A sweep with MLflow", ""]
    lines += [
        f"The same {trials} trials (equal best value) with Optuna alone, with a nested MLflow run a trial as in notebook 05, and with a model logged for each trial besides (requirements named)."
    ]
    lines += [loads(runs), ""]
    body = []
    for name, what in (
        ("optuna", "Optuna alone"),
        ("optuna_mlflow", "and a run a trial"),
        ("optuna_mlflow_models", "and a model a trial"),
    ):
        mine = [run for run in runs if run["contestant"] == name]
        each = [spread([run[v] / trials * 1000 for run in mine], 0) for v in ("cpu_seconds", "seconds")]
        more = "" if name == "optuna" else spread(cost(name, "cpu_seconds"), 0)
        body.append([what, *each, more])
    lines += table(["", "CPU ms a trial", "ms a trial", "CPU ms more than Optuna alone"], body)
    return rows, lines


def step_text(runs: list[dict]) -> tuple[list[list[str]], list[str]]:
    """The same for a pipeline step."""
    steps = [run["step_seconds"] for run in runs]
    rows = [
        [
            "a local pipeline step beside its own imports",
            "under 0.2 s",
            spread(steps, 2, " s"),
            verdict(median(steps) < 0.2),
        ]
    ]
    lines = ["## A pipeline step", ""]
    lines += [
        "Steps that import nothing, in Kubeflow's local runner without a virtual environment of their own: a chain of six minus a chain of one, divided by five."
    ]
    lines += [
        f"A step takes {spread(steps, 3)} s, of CPU {spread([r['step_cpu_seconds'] for r in runs], 3)} s; starting Python alone takes {spread([r['python_seconds'] for r in runs], 3)} s. {loads(runs)}"
    ]
    return rows, lines


def course_parts(notebook: dict) -> dict[str, float]:
    """Where a notebook's seconds went: kernel start, imports in the kernel, imports of processes it waits for, everything else."""
    kernel, own = notebook["kernel_start"], notebook["kernel_imports"]
    others = notebook["step_imports"] + notebook["server_imports"] + notebook["other_imports"]
    rest = max(0.0, notebook["seconds"] - kernel - own - others)
    return {"kernel start": kernel, "imports": own, "imports of steps and servers": others, "the rest": rest}


def course_text(runs: list[dict]) -> tuple[list[list[str]], list[str]]:
    """The same for the whole course."""
    totals = [sum(n["seconds"] for n in run["notebooks"]) for run in runs]
    every = [
        t / (t - sum(course_parts(n)["the rest"] for n in r["notebooks"]))
        for t, r in zip(totals, runs, strict=True)
    ]
    count = len(runs[0]["notebooks"])
    rows = [
        [
            f"`make run`, {count} notebooks",
            "",
            spread(totals, 0, " s"),
            "",
        ],
        [
            "the same beside kernel starts and the imports of all its processes",
            "at most 1.3 x",
            spread(every, 2, " x"),
            verdict(median(every) <= 1.3),
        ],
    ]
    flat = [notebook for run in runs for notebook in run["notebooks"]]
    lines = ["## The whole course", ""]
    lines += [
        "`make run` with everything set up. The ratio counts all imports of two milliseconds and more, measured around Python's `__import__`, in the kernels (also those"
    ]
    lines += [
        f"that a tool makes at its first call) and in the processes that a notebook waits for: pipeline steps, servers, MLflow's helpers. Processes that load side by side count in full, so there the rest is somewhat larger than shown. {loads(flat)}",
        "",
    ]
    shares = {
        part: sum(course_parts(n)[part] for n in flat) / sum(n["seconds"] for n in flat)
        for part in course_parts(flat[0])
    }
    said = ", ".join(f"{share:.0%} {part}" for part, share in shares.items())
    lines += [
        f"Where the time goes: {said}.",
        "",
    ]
    names = [notebook["notebook"] for notebook in runs[0]["notebooks"]]
    body = []
    for name in names:
        mine = [notebook for notebook in flat if notebook["notebook"] == name]
        parts = [course_parts(notebook) for notebook in mine]
        processes = mine[0]["step_processes"] + mine[0]["server_processes"] + mine[0]["other_processes"]
        body.append(
            [
                name,
                spread([n["seconds"] for n in mine], 1),
                *(spread([p[part] for p in parts], 1) for part in parts[0]),
                str(processes),
            ]
        )
    lines += [
        *table(["notebook", "seconds", *course_parts(flat[0]), "processes beside the kernel"], body),
        "",
    ]
    lines += [
        "![Seconds of each notebook as stacked bars: kernel start, imports, imports of steps and servers, the rest.](pictures/performance_course.png)",
        "",
    ]
    slow = sorted(
        (
            (cell["seconds"], n["notebook"], cell["begins"])
            for n in runs[-1]["notebooks"]
            for cell in n["slowest"]
        ),
        reverse=True,
    )[:8]
    lines += [
        "The slowest cells that are not import cells (their imports and those of the processes they wait for included):",
        "",
    ]
    lines += table(
        ["seconds", "notebook", "cell that begins with"],
        [[f"{s:.1f}", n, f"`{b.replace('|', '/')}`"] for s, n, b in slow],
    )
    return rows, lines


def markdown(performance: dict) -> str:
    """The whole page."""
    sections, machine = performance["sections"], performance["machine"]
    rows, body = [], []
    if "join" in sections:
        join = Join(sections["join"]["measured"])
        rows += join.summary()
        body += [*join.text(), ""]
    for name, write in (
        ("selection", selection_text),
        ("online", online_text),
        ("sweep", sweep_text),
        ("step", step_text),
        ("course", course_text),
    ):
        if name in sections:
            more, lines = write(sections[name]["measured"])
            rows += more
            body += [*lines, ""]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    sizes = ", ".join(f"{name} {section['size']}" for name, section in sections.items())
    head = ["# What it costs", ""]
    head += [
        "Written by `make bench` from `performance.json`; do not edit. Each ratio compares contestants of one run that took turns, so that other work on the machine hits both. A figure is a median"
    ]
    head += ["with the least and the greatest of its rounds. Nothing here is a timed test.", ""]
    head += [
        f"**Machine**: {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}; {versions}."
    ]
    head += [f"**Sizes**: {sizes}.", ""]
    return "\n".join([*head, *table(["what", "goal", "measured", ""], rows), "", *body]).rstrip() + "\n"


def draw(performance: dict, folder: Path) -> None:
    """The plots that the page shows."""
    from helpers import plots

    folder.mkdir(parents=True, exist_ok=True)
    sections = performance["sections"]

    def save(fig, name: str) -> None:
        fig.savefig(
            folder / f"performance_{name}.png", format="png", facecolor="white", metadata={"Software": None}
        )

    colors = {"feast": plots.BLUE, "asof": plots.GREEN, "pandas": plots.ORANGE, "feast_asof": plots.PURPLE}
    if "join" in sections:
        join = Join(sections["join"]["measured"])
        fig, axes = plots.figure(width=9.5, height=3.6, columns=2)
        for ax, value, label in zip(
            axes, ("seconds", "peak_mb"), ("seconds", "peak MB of the process"), strict=True
        ):
            for name, color in colors.items():
                values = [
                    [run[value] for run in runs if run["contestant"] == name]
                    for runs in join.of_size.values()
                ]
                x, middle = [rows for _, rows in join.sizes], [median(v) for v in values]
                error = [
                    [m - min(v) for m, v in zip(middle, values, strict=True)],
                    [max(v) - m for m, v in zip(middle, values, strict=True)],
                ]
                ax.errorbar(
                    x, middle, yerr=error, color=color, marker="o", markersize=4, capsize=3, label=NAMES[name]
                )
            ax.set(
                xscale="log", yscale="log", xlabel="feature rows (a tenth as many questions)", ylabel=label
            )
        axes[0].legend(frameon=False, fontsize=8)
        save(fig, "join")
        fig, ax = plots.figure(height=3.0)
        values = [ratios(runs, "feast", "asof") for runs in join.of_ttl.values()]
        ax.plot(join.hours, [median(v) for v in values], color=plots.BLUE, marker="o")
        ax.vlines(join.hours, [min(v) for v in values], [max(v) for v in values], color=plots.BLUE)
        ax.axhline(1.0, color=plots.RED, linestyle="--", linewidth=1.2)
        ax.annotate(
            "goal: 1.0",
            (join.hours[-1], 1.0),
            xytext=(0, 4),
            textcoords="offset points",
            ha="right",
            color=plots.RED,
            fontsize=8,
        )
        ax.set(xlabel="valid rows a question (hours of the time to live)", ylabel="times ASOF by hand")
        ax.set_ylim(bottom=0)
        save(fig, "join_ttl")
    if "selection" in sections:
        bars = {}
        for data, runs in by_data(sections["selection"]["measured"]).items():
            for name in WAYS:
                mine = [run["parts"] for run in runs if run["contestant"] == name]
                if not mine:
                    continue
                bars[called(data, name)] = {
                    part: median(parts.get(part, 0) for parts in mine) for part in PARTS
                }
        stacked(plots, bars, save, "selection")
    if "online" in sections:
        colors = {"in_process": plots.GREEN, "logged": plots.ORANGE, "over_http": plots.BLUE}
        bars = {}  # milliseconds of each round, and the contestant
        for data, runs in by_data(sections["online"]["measured"]).items():
            for name, value in product(colors, ("p50_ms", "p99_ms")):
                rounds = [run[value] for run in runs if run["contestant"] == name]
                if rounds:
                    bars[f"{called(data, name)}, {value[:3]}"] = (rounds, name)
        fig, ax = plots.figure(height=0.8 + 0.4 * len(bars))
        values = [value for value, _ in bars.values()]
        middle = [median(v) for v in values]
        error = [
            [m - min(v) for m, v in zip(middle, values, strict=True)],
            [max(v) - m for m, v in zip(middle, values, strict=True)],
        ]
        drawn = ax.barh(
            list(bars),
            middle,
            xerr=error,
            color=[colors[name] for _, name in bars.values()],
            ecolor=plots.MUTED,
            height=0.62,
        )
        ax.bar_label(drawn, [f"{m:.1f}" for m in middle], padding=4, color=plots.INK)
        ax.invert_yaxis()
        ax.set_xlabel("milliseconds: median of the rounds, least and greatest", color=plots.INK)
        save(fig, "online")
    if "course" in sections:
        runs = sections["course"]["measured"]
        names = [notebook["notebook"] for notebook in runs[0]["notebooks"]]
        parts = {
            name: [course_parts(n) for run in runs for n in run["notebooks"] if n["notebook"] == name]
            for name in names
        }
        stacked(
            plots,
            {
                name: {part: median(p[part] for p in found) for part in found[0]}
                for name, found in parts.items()
            },
            save,
            "course",
        )


def stacked(plots, values: dict[str, dict[str, float]], save, name: str) -> None:
    """Horizontal bars of seconds, cut into parts."""
    fig, ax = plots.figure(width=8.5, height=1.1 + 0.4 * len(values))
    left = dict.fromkeys(values, 0.0)
    for part, color in zip(next(iter(values.values())), plots.CYCLE, strict=False):
        ax.barh(
            list(values),
            [found[part] for found in values.values()],
            left=list(left.values()),
            color=color,
            height=0.62,
            label=part,
        )
        left = {bar: left[bar] + found[part] for bar, found in values.items()}
    ax.invert_yaxis()
    ax.set_xlabel("seconds", color=plots.INK)
    ax.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    save(fig, name)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "docs")
    arguments = parser.parse_args(argv)
    performance = json.loads((arguments.out / "performance.json").read_text())
    (arguments.out / "performance.md").write_text(markdown(performance))
    draw(performance, arguments.out / "pictures")
    print((arguments.out / "performance.md").read_text().split("\n## ")[0].strip())


if __name__ == "__main__":
    main()
