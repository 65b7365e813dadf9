"""A judged study as a document: the question, the verdict by the rule, what it rests on, and what it could not see.

Every number was logged by `mahler validate` or by a run that it judged; nothing is estimated here. A Sharpe ratio, or
a difference of two, is written with its interval or not at all; the lines of the rule that are point checks say so.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mahler import findings, metrics, report_figures as draw
from mahler.comparison import Run, limits_at_work
from mahler.document import Block, Bullets, Code, Heading, Picture, Rows, Words
from mahler.figures import SYNTHETIC, percent
from mahler.ledger import Ledger
from mahler.report_figures import Curve
from mahler.schema import SESSIONS_PER_YEAR, ConfigError, Regime, Table

Row = Mapping[str, Any]          # a row of tracking.runs
DASH = "–"
DEFAULT = "default"              # the option of an axis that a config's name does not mention

CRITERIA = {
    "out_of_sample": "Out of sample: lower end of the difference's interval",
    "deflated_sharpe": "Deflated Sharpe ratio (a probability) with the full N",
    "pbo_p_value": "p-value of PBO among equal configs",
    "drawdown": "Maximum drawdown out of sample, at equal mean heat where that was reached",
    "natural_fill": "Sign of the difference at natural fills",
    "without_best_year": "Sign of the difference without the year that favours it most",
    "without_best_trades": "Sign of the difference without the five best trades of either",
    "neighbours": "Sign of the median difference of the neighbouring cells",
}

RULE = ("The rule was written down before any study was run. A study is better than control only if every line below "
        "passes: StepM at 5 %, or the lower end of the paired interval, says so on the stitched out-of-sample "
        "account; the deflated Sharpe ratio is at least 0.95 with the full N; PBO is low against a null of equal "
        "configs; the drawdown is not worse by a fifth; and the sign survives natural fills, the loss of its best year "
        "and of its best trades, and its neighbours. The last lines are point checks: they are asked for a sign only.")


@dataclass(frozen=True)
class Study:
    """What was asked: `swept` are the options, by key, that the study's own YAML multiplies."""

    name: str
    question: str | None
    swept: Mapping[str, Sequence[str]]
    failed: int                  # runs that failed
    code: str                    # version of the code that writes the report


@dataclass(frozen=True)
class Family:
    """One validation: its run, its judgement and tables, and the runs and ledgers that it judged (none for a grid)."""

    row: Row
    judgement: Mapping[str, Any]
    tables: Mapping[str, Table]
    runs: Sequence[Row]
    ledgers: Sequence[Ledger]
    later: int                   # finished backtests of the universe that are newer than the validation

    @property
    def universe(self) -> str:
        return self.judgement["universe"]

    @property
    def control(self) -> str:
        return self.short[self.judgement["control"]]

    @cached_property
    def short(self) -> dict[str, str]:
        """By full name what is left of it without the words that all have."""
        names = self.tables["trials"]["config"].tolist()
        return dict(zip(names, findings.short_names([{"name": name} for name in names]), strict=True))

    @cached_property
    def shown(self) -> list[str]:
        """The configs with intervals, short."""
        return [self.short[name] for name in self.tables["configs"]["config"]]

    @cached_property
    def shade(self) -> dict[str, str]:
        first = [self.short[name] for name, _ in self.judgement["winners"]]
        return draw.colours(list(self.short.values()), self.control, first)

    @property
    def level(self) -> float:
        return float(self.row["params.level"])

    @property
    def replications(self) -> int:
        """Bootstrap samples."""
        return int(self.row["params.replications"])

    @property
    def of_run(self) -> dict[str, tuple[Row, Ledger]]:
        """The run and the ledger of each shown config, where the configs were runs."""
        named = {row["name"]: (row, ledger) for row, ledger in zip(self.runs, self.ledgers, strict=True)}
        return {self.short[name]: named[name] for name in self.tables["configs"]["config"] if name in named}


def title(study: Study, families: Sequence[Family]) -> str:
    """The study's name, behind a warning where any of its data were made."""
    made = any(family.row["tags.market"] == "synthetic" for family in families)
    return f"{SYNTHETIC}: {study.name}" if made else study.name


def blocks(study: Study, families: Sequence[Family], axes: Sequence[str]) -> list[Block]:
    """The whole document. Raises ConfigError where `axes` are not two that vary."""
    synthetic = title(study, families) != study.name
    found: list[Block] = [Heading(1, title(study, families), loud=synthetic)]
    if study.question:
        found.append(Words(study.question, strong=True))
    found += [_overview(families), *_commands_and_data(study, families)]
    for family in families:
        found += _family(family, axes)
    return [*found, *_trials(families), *_limits(study, families), *_reproduce(study, families)]


# ---- how numbers are written -----------------------------------------------------------------------------------------


def value(x: Any, form: str) -> str:
    """A number as text, or a dash: missing, NaN and infinite are undefined. What is not zero does not read as zero."""
    if x is None or not np.isfinite(x):
        return DASH
    if form == "%":
        return percent(float(x))
    text = format(float(x), form)
    looks_zero = float(text.replace(",", "")) == 0.0 and abs(x) > 1e-9
    return format(float(x), f"{form.partition('.')[0]}.1g") if looks_zero else text


def of_samples(p: float | None, replications: int) -> str:
    """A p-value that is a share of bootstrap samples: none of them is not zero, but less than one of them."""
    return f"below {1.0 / replications:.1g}" if p == 0.0 else value(p, ".2f")


def with_interval(table: Mapping[str, np.ndarray], name: str, row: int, form: str) -> str:
    """A value with its interval; a dash where either is undefined, so that none stands bare."""
    parts = [value(table[column][row], form) if column in table else DASH
             for column in (name, f"{name}_low", f"{name}_high")]
    return DASH if DASH in parts else "{} ({} to {})".format(*parts)


def _out_of_sample(family: Family) -> str:
    found = {name: np.array([x], float) for name, x in family.judgement["evidence"]["difference"].items()}
    return with_interval({"d": found["value"], "d_low": found["low"], "d_high": found["high"]}, "d", 0, "+.2f")


def _seen(family: Family) -> str:
    """The difference that the rule would have found, or that it would have found none."""
    return "none" if family.judgement["out_of_reach"] else value(family.judgement["evidence"]["detectable"], ".2f")


def _count(n: int, one: str) -> str:
    return f"{n:,} {one}" if n == 1 else f"{n:,} {one}s"


# ---- the beginning ---------------------------------------------------------------------------------------------------


def _overview(families: Sequence[Family]) -> Rows:
    body = []
    for family in families:
        e, (winner, share) = family.judgement["evidence"], family.judgement["winners"][0]
        body.append((family.universe, family.judgement["verdict"].upper(), _out_of_sample(family),
                     _seen(family), value(e["deflated_sharpe"], ".2f"), f"{e['n_trials']:,.0f}",
                     f"{value(family.judgement['pbo_tested'], '.2f')} (p {value(e['pbo_p_value'], '.2f')})",
                     f"{family.short[winner]} ({share:.0%})"))
    return Rows(("universe", "verdict", f"Sharpe less control's, out of sample ({families[0].level:.0%})",
                 "this rule finds", "deflated Sharpe", "of N", "PBO (p of equal configs)", "chosen most often"),
                tuple(body), words=frozenset({1, 7}))


def _commands_and_data(study: Study, families: Sequence[Family]) -> list[Block]:
    rows: list[tuple[str, str]] = []
    for family in families:
        row, dates = family.row, family.tables["accounts"]["date"]
        kind = "SYNTHETIC, modelled quotes" if row["tags.market"] == "synthetic" else "real chains"
        first, last = _period(family)
        rows += [(f"{family.universe}: data", f"{row['tags.data_source']} ({kind}), digest {row['tags.data_digest']}"),
                 (f"{family.universe}: period", f"{first} to {last}; out of sample {dates[0]} to {dates[-1]}, "
                                                f"{len(dates):,} sessions"),
                 (f"{family.universe}: configs", f"{family.judgement['configs']:,}, control {family.control}")]
        quality = sorted({run["tags.quality"] for run in family.runs if "tags.quality" in run})
        if quality:
            rows.append((f"{family.universe}: quality of the data", " and ".join(quality)))
    rows.insert(0, ("command", "; ".join(_backtests(study, families) + _validates(families))))
    return [Heading(2, "What was run"), Rows(("", ""), tuple(rows), words=frozenset({1}))]


def _period(family: Family) -> tuple[np.datetime64, np.datetime64]:
    """First and last session: of the runs, or, where there are none, of the windows."""
    if family.ledgers:
        dates = family.ledgers[0].account["date"]
        return dates[0], dates[-1]
    return family.tables["folds"]["train_first"].min(), family.tables["folds"]["test_last"].max()


# ---- a universe ------------------------------------------------------------------------------------------------------


def _family(family: Family, axes: Sequence[str]) -> list[Block]:
    found: list[Block] = [Heading(2, f"{family.universe}: {family.judgement['verdict']}"), *_verdict(family),
                          *_configs(family), _accounts(family), _differences(family), *_choosing(family)]
    found += _limits_at_work(family)
    found += _stress(family)
    found += _map(family, axes)
    return [*found, *_unseen(family)]


def _verdict(family: Family) -> list[Block]:
    passed = {True: "yes", False: "NO", None: "nothing to ask"}
    form = {"drawdown": "%", "deflated_sharpe": ".2f", "pbo_p_value": ".2f"}
    e = family.judgement["evidence"]
    beside = {"out_of_sample": f" (StepM {'names it' if e['superior'] else 'does not name it'})",
              "drawdown": f", which is {value(e['control_drawdown'], '%')}"}
    body = tuple((CRITERIA.get(c["name"], c["name"]), value(c["value"], form.get(c["name"], "+.2f")),
                  c["threshold"] + beside.get(c["name"], ""), passed[c["passed"]])
                 for c in family.judgement["criteria"])
    return [Heading(3, f"Verdict: {family.judgement['verdict']}"), Bullets(tuple(family.judgement["reasons"])),
            Words(RULE), Rows(("criterion", "found", "asked", "passed"), body, words=frozenset({2, 3}))]


def _configs(family: Family) -> list[Block]:
    c, level = family.tables["configs"], f"{family.level:.0%}"
    is_control = c["is_control"].astype(bool).tolist()
    names = [f"{name} (control)" if mine else name for name, mine in zip(family.shown, is_control, strict=True)]
    strong = frozenset(np.flatnonzero(is_control).tolist())
    returns = tuple((
        name, with_interval(c, "sharpe", row, ".2f"), "control" if is_control[row] else
        with_interval(c, "difference", row, "+.2f"), DASH if is_control[row] else value(c["detectable"][row], ".2f"),
        with_interval(c, "cagr", row, "%"), f"{c['trades'][row]:,.0f}", value(c["mean_heat"][row], "%"))
        for row, name in enumerate(names))
    falls = tuple((name, with_interval(c, "max_drawdown", row, "%"), _drawdown_dates(family, row),
                   f"{value(c['cagr'][row], '%')} / {value(c['max_drawdown'][row], '%')}" if is_control[row] else
                   _equal_heat(c, row)) for row, name in enumerate(names))
    note = ("Whole period, in sample; the control is in bold. Intervals are percentiles of a stationary bootstrap of "
            "daily returns, each by itself, not corrected for the number of configs. Heat is open maximum loss over "
            "equity; \"at equal heat\" scales a config's risk until its mean heat is the control's.")
    more = family.judgement["configs"] - len(names)
    if more:
        note += f" Of {family.judgement['configs']:,} configs the control, the winners and the best are shown."
    return [Heading(3, "Configs"), Rows(
        ("config", f"Sharpe ({level})", f"Sharpe less control's ({level})", "one test sees", f"CAGR ({level})",
         "trades", "mean heat"), returns, strong),
        Rows(("config", f"max drawdown ({level})", "its dates", "at equal heat: CAGR / drawdown (risk)"), falls,
             strong),
        Words(note), *_losing(family), *_effective_multipliers(family)]


def _drawdown_dates(family: Family, row: int) -> str:
    """Peak, trough and recovery from the run's own account; a dash where it is not the account that was validated."""
    found = family.of_run.get(family.shown[row])
    if found is None:
        return DASH
    account = found[1].account
    worst = metrics.max_drawdown(account["equity"], found[1].initial_equity, account["date"])
    if not np.isclose(worst.depth, family.tables["configs"]["max_drawdown"][row], rtol=1e-6):
        return DASH
    end = "not recovered" if np.isnat(worst.recovery) else f"recovered {worst.recovery}"
    return f"{worst.start}, low {worst.trough}, {end}, {worst.days:,} days"


def _equal_heat(c: Table, row: int) -> str:
    names = ("equal_heat_cagr", "equal_heat_max_drawdown", "equal_heat_scale")
    if not all(name in c and np.isfinite(c[name][row]) for name in names):
        return "not reached"
    growth, fall, scale = (float(c[name][row]) for name in names)
    return f"{percent(growth)} / {percent(fall)} (x {scale:.2f})"


def _losing(family: Family) -> list[Block]:
    """What has to be known before differences are read, where the control itself loses."""
    c = family.tables["configs"]
    row = int(np.flatnonzero(c["is_control"])[0])
    if "sharpe" not in c or not c["sharpe"][row] < 0:
        return []
    sure = "; the whole interval is below zero" if c["sharpe_high"][row] < 0 else ""
    return [Words(f"The control itself loses on these data: Sharpe {with_interval(c, 'sharpe', row, '.2f')}{sure}. "
                  "Below zero a Sharpe ratio is made better by more risk as well as by less loss, and a config may "
                  "look better for trading less. Read the differences with that in mind: less bad is not good.")]


def _effective_multipliers(family: Family) -> list[Block]:
    """What runs warn of, and what rounding left of the regime multipliers, where they differ between configs."""
    regimes = [regime.name.lower() for regime in Regime if regime >= 0]
    body = [(name, *(value(row.get(f"effective_multiplier.{regime}"), ".2f") for regime in regimes))
            for name, (row, _) in family.of_run.items()]
    said = tuple(findings.warnings([{**row, "name": name} for name, (row, _) in family.of_run.items()]))
    warned: list[Block] = [Bullets(said)] if said else []
    if len({cells[1:] for cells in body}) < 2:
        return warned
    return [*warned, Words("Regime multipliers as they came out in whole contracts (a dash: no candidate in that regime):"),
            Rows(("config", *(regime.replace("_", " ") for regime in regimes)), tuple(body))]


# ---- figures ---------------------------------------------------------------------------------------------------------


def _file(family: Family, what: str) -> str:
    return f"{family.universe.replace(',', '-')}-{what}.svg"


def _accounts(family: Family) -> Picture:
    whole = [Curve(name, ledger.account["date"], ledger.account["equity"], ledger.initial_equity, family.shade[name],
                   name == family.control) for name, (_, ledger) in family.of_run.items()]
    out = family.tables["accounts"]
    stitched = [Curve("chosen, out of sample", out["date"], np.cumprod(1.0 + out["chosen"]), 1.0, draw.STITCHED, True),
                Curve(f"{family.control} (control), out of sample", out["date"], np.cumprod(1.0 + out["control"]), 1.0,
                      family.shade[family.control], True)]
    caption = (f"{family.universe}: equity and drawdown, the control in bold ink. " if whole else
               f"{family.universe}: equity and drawdown out of sample; a grid keeps no daily account of each cell. ")
    return Picture(_file(family, "accounts"), draw.accounts(whole, stitched), caption + (
        "The out-of-sample account starts flat in each test window, so its control is not a piece of the whole run's."))


def _differences(family: Family) -> Picture:
    c, d = family.tables["configs"], family.judgement["evidence"]["difference"]
    keep = np.flatnonzero(c["is_control"] == 0)
    scored = tuple(np.nan if x is None else float(x) for x in
                   (d["value"], d["low"], d["high"], family.judgement["evidence"]["single_test"]))
    columns = [c[name][keep] for name in ("difference", "difference_low", "difference_high", "detectable")]
    svg = draw.differences([family.shown[k] for k in keep], *columns, scored, d["level"])
    return Picture(_file(family, "differences"), svg, (
        f"{family.universe}: the difference from the control of each config in sample, and of what was chosen, out of "
        "sample. A point nearer to zero than its grey tick is less than one test could have shown with 80 % power."))


def _choosing(family: Family) -> list[Block]:
    folds, j = family.tables["folds"], family.judgement
    winners = [family.short[name] for name in folds["winner"]]
    starts = len(np.unique(folds["shift"]))
    heat, worth = j["heat"], j["worth"]
    out_of_sample, all_tested = len(family.tables["accounts"]["date"]) / SESSIONS_PER_YEAR, j["tested"] == j["configs"]
    rows = [
        ("chosen most often", ", ".join(f"{family.short[name]} {share:.0%}" for name, share in j["winners"][:4])),
        ("difference on each staggered start", ", ".join(
            f"+{shift} sessions: {value(d, '+.2f')}"
            for shift, d in zip(family.tables["spread"]["shift"], family.tables["spread"]["difference"], strict=True))
         + f"; the first is the one that is scored, {_out_of_sample(family)}"),
        ("the same difference with Ledoit and Wolf's HAC error", DASH if j["robust"] is None else
         with_interval({name: np.array([j["robust"][key]], float) for name, key in (
             ("d", "difference"), ("d_low", "low"), ("d_high", "high"))}, "d", 0, "+.2f")
         + f", p {value(j['robust']['p_value'], '.2f')}"),
        ("chosen again at the control's mean heat", DASH if heat is None else
         f"risk x {heat['scale']:.2f}, mean heat {percent(heat['heat'])}"
         + ("" if heat["reached"] else ", not reached")),
        ("PSR and DSR of the chosen account: its Sharpe ratio is above zero, taken alone and as the best of N",
         f"{value(worth['probabilistic'], '.2f')} and {value(worth['deflated'], '.2f')}"),
        ("MinTRL: years after which its Sharpe ratio is above zero with 95 %",
         f"{_long(worth['min_track_record_years'])}; it has {out_of_sample:.1f}"),
        (f"MinBTL: years below which the best of {j['n_trials']:,} worthless configs is expected to show the Sharpe "
         "ratio of the best here", f"{_long(worth['min_backtest_years'])}; there are {worth['years']:.1f}"),
        ("PBO", value(j["pbo"], ".2f") + ("" if all_tested else f"; of the {j['tested']} configs shown, the best of "
                f"{j['configs']:,}, {value(j['pbo_tested'], '.2f')}") + "; equal configs are as low with p "
                f"{value(j['evidence']['pbo_p_value'], '.2f')}"),
        ("the chosen lost out of sample", f"in {value(j['probability_of_loss'], '%')} of the splits; slope of out of "
                                          f"sample on in sample {value(j['degradation'], '+.2f')}"),
        ("Hansen's SPA, whole period, any config against the control", f"p {of_samples(j['spa_p_value'], family.replications)}; StepM at "
         f"5 % names {', '.join(family.short[name] for name in j['superior']) or 'none'}" if all_tested else
         f"not asked of {j['configs']:,} configs; of the best of them it would say nothing, for they were chosen"),
    ]
    return [Heading(3, "Choosing, fold by fold"),
            Picture(_file(family, "folds"), draw.folds(folds["test_first"], folds["shift"], winners, family.shade,
                                                       family.control),
                    f"{family.universe}: {len(winners)} folds in {_count(starts, 'staggered start')}: train "
                    f"{family.row['params.train']} months, test {family.row['params.test']}, step "
                    f"{family.row['params.step']}; chosen by {family.row['params.objective']}, ties to the control."),
            Rows(("", ""), tuple(rows), words=frozenset({1})),
            Picture(_file(family, "overfitting"), draw.overfitting(
                family.tables["pbo_logits"]["logit"], j["pbo_tested"], family.tables["pbo_null"]["pbo"],
                j["evidence"]["pbo_p_value"]),
                f"{family.universe}: where the config chosen on one half of the data ranks on the other half, and this "
                "study's probability of overfitting among those of equally good configs, as correlated as these.")]


def _long(years: float | None) -> str:
    return "no length is enough, for it is not above zero" if years is None else f"{years:,.1f}"


def _stress(family: Family) -> list[Block]:
    """Return and drawdown of every run in the stress windows; of a grid nothing was logged, and nothing is said."""
    windows = [name for name in metrics.STRESS if any(f"{name}.return" in row for row, _ in family.of_run.values())]
    if not windows or family.control not in family.of_run:
        return []
    returns = {name: np.array([row.get(f"{window}.return", np.nan) for window in windows])
               for name, (row, _) in family.of_run.items()}
    body = tuple((f"{draw.STRESS_LABELS[window]}, {metrics.STRESS[window][0]} to {metrics.STRESS[window][1]}", *(
        f"{value(row.get(f'{window}.return'), '%')} / {value(row.get(f'{window}.drawdown'), '%')}"
        for row, _ in family.of_run.values())) for window in windows)
    head = ("return / drawdown", *(f"{name} (control)" if name == family.control else name for name in returns))
    return [Heading(3, "Stress windows"),
            Picture(_file(family, "stress"), draw.stress(windows, returns, family.shade, family.control),
                    f"{family.universe}: return in each stress window that the runs cover, each at its own heat. One "
                    "window is one event: no interval can be given."), Rows(head, body)]


def _limits_at_work(family: Family) -> list[Block]:
    """Heat, and what became of the candidates, of every run; a grid keeps neither."""
    members = [Run(name, dict(row), ledger) for name, (row, ledger) in family.of_run.items()]
    if not members:
        return []
    return [Heading(3, "Limits at work"), *limits_at_work(members, family.shade, f"{family.universe.replace(',', '-')}-")]


# ---- the heat map ----------------------------------------------------------------------------------------------------


def settings(name: str) -> dict[str, str]:
    """Axis and option of each setting in a config's name: "SPY exit.stop_loss=2.0, regime=flat"."""
    return dict(part.split("=", 1) for part in re.findall(r"[\w./]+=(?:\[[^\]]*\]|[^,\s])+", name))


def _map(family: Family, axes: Sequence[str]) -> list[Block]:
    trials = family.tables["trials"]
    cells = [settings(name) for name in trials["config"]]
    options = {axis: _ordered(cell.get(axis, DEFAULT) for cell in cells) for cell in cells for axis in cell}
    varying = [axis for axis, found in options.items() if len(found) > 1]
    axes = [axis if axis in varying else axis.rpartition(".")[2] for axis in axes]       # a name has the last part
    for axis in axes:
        if axis not in varying:
            raise ConfigError(f"axes: {axis} does not vary among the configs of {family.universe}; what does is "
                              f"{', '.join(varying) or 'nothing that has a name'}")
    if len(varying) < 2:
        return []
    first, second = axes or varying[:2]

    def place(cell: Mapping[str, str]) -> tuple[int, int]:
        return options[first].index(cell.get(first, DEFAULT)), options[second].index(cell.get(second, DEFAULT))

    size = (len(options[first]), len(options[second]))
    members: dict[tuple[int, int], list[int]] = {}
    for trial, cell in enumerate(cells):
        members.setdefault(place(cell), []).append(trial)
    panels = {}
    for label, name in (("CAGR, %", "cagr"), ("max drawdown, %", "max_drawdown"), ("mean heat, %", "mean_heat")):
        panels[label] = np.full(size, np.nan)
        for at, inside in members.items():
            panels[label][at] = 100.0 * np.median(trials[name][inside])
    others = [axis for axis in varying if axis not in (first, second)]
    pooled = f" A cell is the median over {', '.join(others)}." if others else ""
    return [Heading(3, "Map of the grid"), Picture(
        _file(family, "map"), draw.heat_map((first, second), (options[first], options[second]), panels,
                                            place(settings(family.judgement["control"]))),
        f"{family.universe}: whole period, in sample, each config at its own heat; the control's cell is framed."
        f"{pooled} There are no intervals here: a map shows whether neighbours agree, and proves nothing.")]


def _ordered(options: Iterable[str]) -> list[str]:
    """Each option once: numbers by size, names in the order in which they came."""
    once = list(dict.fromkeys(options))
    try:
        return sorted(once, key=float)
    except ValueError:
        return once


# ---- the end ---------------------------------------------------------------------------------------------------------


def _unseen(family: Family) -> list[Block]:
    j, c = family.judgement, family.tables["configs"]
    seen = c["detectable"][(c["is_control"] == 0) & (np.nan_to_num(c["detectable"]) > 0.0)]     # 0: the control's twin
    null = family.tables["pbo_null"]["pbo"]
    beyond = "any Sharpe difference" if j["out_of_reach"] else f"a Sharpe difference below {_seen(family)} a year"
    items = ["Out of sample, nobody knows how small a difference: an account never moved or was ruined, or every config "
             "did what the control did."] if _seen(family) == DASH else [
             f"Out of sample, {beyond}, by this rule in four studies of five (experiments/calibration.md), where one "
             f"test of one config would see {value(j['evidence']['single_test'], '.2f')}. The estimate, with its "
             f"interval, is {_out_of_sample(family)}; whatever lies in the interval is not excluded."]
    if len(seen):
        items.append(f"In sample, differences of a single config below {seen.min():.2f} to {seen.max():.2f}, more the "
                     "less a config resembles the control.")
    if len(null):
        items.append(f"Overfitting, by PBO alone: equal configs as correlated as these {j['tested']} give a PBO from "
                     f"{np.quantile(null, 0.05):.2f} to {np.quantile(null, 0.95):.2f} in nine of ten draws.")
    items.append("Anything that needs another history: there is one path, and as many crashes as it had.")
    return [Heading(3, "What could not have been seen"), Bullets(tuple(items))]


def _trials(families: Sequence[Family]) -> list[Block]:
    found: list[Block] = [Heading(2, "N, and where it comes from"), Words(
        "N counts every configuration that was ever backtested or searched on the same store, by any study, from an "
        "append-only ledger beside the chains: deleting runs does not lower it. It deflates the Sharpe ratio above. It "
        "cannot count what was tried elsewhere before: the entry and exit rules that all configs share came from "
        "earlier work on the same years.")]
    body = [(f"{', '.join(universes)}: {store}", f"{n:,}", ", ".join(f"{study} {k:,}" for study, k in sources))
            for (store, n, sources), universes in _same_n(families).items()]
    return [*found, Rows(("universe: store", "N", "by study"), tuple(body), words=frozenset({2}))]


def _same_n(families: Sequence[Family]) -> dict[tuple, list[str]]:
    """The universes by what N was for them; it grows between validations."""
    by: dict[tuple, list[str]] = {}
    for family in families:
        sources = tuple(family.judgement["n_by_study"].items())
        key = (family.row["tags.data_source"], family.judgement["n_trials"], sources)
        by.setdefault(key, []).append(family.universe)
    return by


def _limits(study: Study, families: Sequence[Family]) -> list[Block]:
    items = [item for family in families[:1] for item in _data_limits(family)]
    items += [
        *sorted({_fills(family) for family in families}),
        "Marks and exits are of one quote a day: a stop is seen at the next quote, not when it was crossed. Margin "
        "interest, taxes and the effect of one's own orders on the quotes are not modelled.",
        "All configs saw the same chains and the same daily history, and what a study does not vary is fixed: "
        "the result is conditional on those rules, sizes, costs and initial equity.",
        "Every test window starts flat, so the out-of-sample account holds fewer positions after each of its seams "
        "than an account that never stops.",
    ]
    if study.failed:
        items.append(f"{_count(study.failed, 'run')} of the study failed and {'is' if study.failed == 1 else 'are'} "
                     "not in it.")
    items += [f"{_count(family.later, 'backtest')} of {family.universe} finished after this validation and "
              f"{'is' if family.later == 1 else 'are'} not in it: mahler validate study={study.name}"
              for family in families if family.later]
    undated = [family.universe for family in families if family.runs and DASH in
               [_drawdown_dates(family, row) for row in range(len(family.shown))]]
    items += [f"{universe}: a drawdown without dates is of a run whose account is not the one that was validated: the "
              "code changed in between." for universe in undated]
    return [Heading(2, "Limits"), Bullets(tuple(items))]


def _data_limits(family: Family) -> list[str]:
    """What the data are; where they were made, with which options."""
    if family.row["tags.market"] != "synthetic":
        return [f"The chains are {family.row['tags.data_source']}'s, end of day, as they were ingested."]
    of = [row for row in family.runs or [family.row] if "params.data.seed" in row]
    anchors = {row.get("params.data.anchor", "null") for row in of}
    path = ("" if not of else " The path is bridged between the known turning points of the market."
            if anchors == {"null"} else f" The path is that of the daily series in {', '.join(sorted(anchors))}.")
    options = ("seed", "variance_premium", "drift", "max_dte")
    made = ", ".join(f"{option} {of[0][f'params.data.{option}']}" for option in options
                     if of and f"params.data.{option}" in of[0])
    return ["The market is SYNTHETIC: every quote is modelled, none was ever made by anybody"
            f"{f' ({made})' if made else ''}.{path} What is found here tests the method and the rules; it decides "
            "nothing about a real market."]


def _fills(family: Family) -> str:
    travel = {run["params.fill.travel"] for run in family.runs if "params.fill.travel" in run}
    if len(travel) == 1:
        return (f"Fills are modelled, none was traded: a leg travels {float(*travel):.0%} of its bid-ask spread. The "
                "natural fill, all of the spread on every leg of both accounts, is one of the criteria.")
    return ("Fills are modelled, none was traded. The natural fill, all of the bid-ask spread on every leg of both "
            "accounts, is one of the criteria.")


def _reproduce(study: Study, families: Sequence[Family]) -> list[Block]:
    data = sorted({override for family in families for row in (*family.runs, family.row)
                   for override in _overrides(row) if re.match(r"\+?data\b", override)})
    lines = (_command("ingest", *data), *_backtests(study, families), *_validates(families),
             f"mahler report study={study.name}")
    body = []
    for family in families:
        for row in (family.row, *family.runs):
            dirty = ", uncommitted changes" if row.get("tags.git_dirty") == "true" else ""
            body.append((row["name"], row["run_id"], row["started"], row.get("tags.git_commit", DASH)[:12] + dirty))
    found: list[Block] = [Heading(2, "How to reproduce"), Code(lines),
                          Rows(("run", "id", "started, UTC", "git commit"), tuple(body), words=frozenset({1, 2, 3})),
                          Words(f"Written by code version {study.code}.")]
    if any("uncommitted" in cells[3] for cells in body):
        found.append(Words("Runs with uncommitted changes are not reproduced by the commit alone; their config is an "
                           "artifact of each."))
    return found


# ---- what was typed --------------------------------------------------------------------------------------------------


def _overrides(row: Row) -> list[str]:
    """What was typed for a run, one by one; a value may hold spaces."""
    return [text for text in re.split(r"\s+(?=[+~]*[\w./@]+=|~[\w./@]+(?:\s|$))", row.get("tags.overrides", "").strip())
            if text]


def _command(*words: str) -> str:
    """A command of mahler, as a shell takes it."""
    return " ".join(["mahler", *map(shlex.quote, words)])


def _validates(families: Sequence[Family]) -> list[str]:
    return list(dict.fromkeys(_command("validate", *_overrides(family.row)) for family in families))


def _backtests(study: Study, families: Sequence[Family]) -> list[str]:
    """The command that ran the judged runs: one where they are a product of options, else one for each."""
    typed = [dict(text.split("=", 1) for text in _overrides(row) if "=" in text) for family in families
             for row in family.runs]
    if not typed:
        return []
    values = {key: list(dict.fromkeys(one.get(key) for one in typed)) for one in typed for key in one}
    product = int(np.prod([len(found) for found in values.values()], dtype=np.int64))
    if product != len(typed) or any(None in found for found in values.values()):
        return [_command("backtest", *(f"{key}={option}" for key, option in one.items())) for one in typed]
    own = {key: found for key, found in values.items()
           if not ("experiment" in values and set(found) == set(study.swept.get(key, ())))}
    sweep = ["-m"] if any(len(found) > 1 for found in own.values()) else []
    first = sorted(own, key=lambda key: key != "experiment")
    return [_command("backtest", *sweep, *(f"{key}={','.join(own[key])}" for key in first))]
