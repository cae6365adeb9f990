"""Owns what a person sees while a search runs: a table of the best and a bar on a terminal, else plain lines."""

from __future__ import annotations

from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from train.search.options import SearchOptions
from train.search.reward import score
from train.search.rows import Scored, Trained, Trial, Unit
from zoo.model.space import Candidate, Reward
from zoo.wording import count, number_of, percent

# So many of the best are on the screen; all of them are in the page.
SHOWN = 8


class LiveSearch:
    """Progress on stderr: a line for each trial that ends; on a terminal also the best so far and the epochs."""

    def __init__(self, options: SearchOptions, console: Console) -> None:
        self.options = options
        self.console = console
        self.trials: list[Trial] = []
        self.reward, self.unit = Reward(), Unit(code="-", num_params=1)
        self.progress = Progress(
            TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
            expand=True,
        )
        self.task = self.progress.add_task("starting", total=options.epochs, text="")
        self.live = Live(console=console, transient=True, refresh_per_second=2, get_renderable=self._screen)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *told: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def begin(self, trials: list[Trial], reward: Reward, unit: Unit, headline: str) -> None:
        """Say what is searched, and what is known already."""
        self.trials, self.reward, self.unit = list(trials), reward, unit
        self.console.print(escape(headline))
        settled = sum(trial.state != "running" for trial in trials)
        if settled:
            self.console.print(f"Going on after {number_of(settled, 'trial')}.")

    def start(self, candidate: Candidate) -> None:
        """A trial begins."""
        self._restart(f"trial {self._settled + 1}{self._of}", candidate.code, self.options.epochs)

    def start_long(self, candidate: Candidate, seed: int) -> None:
        """A long training begins."""
        self._restart(f"finalist, seed {seed}", candidate.code, self.options.finalist_epochs)

    def epoch(self, epoch: int, top1: float) -> None:
        """An epoch has ended."""
        self.progress.update(self.task, completed=epoch, text=f"{percent(top1)} top-1")

    def show(self, trial: Trial, trials: list[Trial]) -> None:
        """Leave a line of a trial that has ended; `trials` are all there are, other workers' among them."""
        self.trials = trials
        scored = scored_of(trial, self.reward, self.unit)
        words = [f"trial {self._settled}{self._of}", trial.code]
        if trial.trained and scored:
            words.append(f"{percent(trial.trained.top1)} top-1")
            words.append(f"reward [bold]{scored.value:.4f}[/] ({scored.low:.3f} – {scored.high:.3f})")
        if trial.costs:
            words.append(f"step {trial.costs.step.ratio:.2f}×, {count(trial.costs.num_params)} parameters")
        if trial.state == "stopped early" and trial.trained:
            words.append(f"[yellow]stopped early[/] after epoch {trial.trained.epochs}")
        if trial.state == "failed":
            words.append(f"[red]failed[/]: {escape(trial.reason)}")
        self.console.print("  ".join(words))

    def show_long(self, candidate: Candidate, seed: int, trained: Trained) -> None:
        """Leave a line of a long training that has ended."""
        self.console.print(
            f"finalist {candidate.code}, seed {seed}: [bold]{percent(trained.top1)}[/] top-1 after "
            f"{number_of(trained.epochs, 'epoch')}"
        )

    def say(self, remark: str) -> None:
        """Say something that a person should know."""
        self.console.print(f"[yellow]Note:[/] {escape(remark)}")

    def _restart(self, description: str, code: str, epochs: int) -> None:
        self.progress.reset(self.task, description=description, total=epochs, text=code)

    @property
    def _settled(self) -> int:
        return sum(trial.state != "running" for trial in self.trials)

    @property
    def _of(self) -> str:
        target = self.options.trial_count
        return "" if target is None else f"/{target}"

    def _screen(self) -> Group:
        """What stays at the bottom of a terminal."""
        return Group(best_table(self.trials, self.reward, self.unit, SHOWN), self.progress)


def scored_of(trial: Trial, reward: Reward, unit: Unit) -> Scored | None:
    """A trial's reward, also of one that was stopped early; None where it reached nothing."""
    if trial.costs is None or trial.trained is None:
        return None
    return score(reward, trial.costs, unit, trial.trained)


def best_table(trials: list[Trial], reward: Reward, unit: Unit, shown: int) -> Table:
    """The finished trials with the highest rewards."""
    table = Table(box=None, title=f"the best of {len(trials)} trials", title_justify="left")
    for name in ("network", "reward", "95 %", "top-1", "step", "parameters"):
        table.add_column(name, justify="left" if name == "network" else "right", no_wrap=True)
    scored = [(scored_of(trial, reward, unit), trial) for trial in trials if trial.state == "finished"]
    for found, trial in sorted(scored, key=lambda pair: -pair[0].value if pair[0] else 0.0)[:shown]:
        if found and trial.trained and trial.costs:
            table.add_row(
                trial.code,
                f"{found.value:.4f}",
                f"{found.low:.3f} – {found.high:.3f}",
                percent(trial.trained.top1),
                f"{trial.costs.step.ratio:.2f}×",
                count(trial.costs.num_params),
            )
    return table
