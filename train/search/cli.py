"""Owns the command `zoo search`: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path

import click

from train.search.options import SearchOptions
from zoo.options import PATH, json_option, takes


@click.command("search")
@takes(SearchOptions)
@click.option("--plan", is_flag=True, help="Say how long it takes, or how many trials fit the budget; train nothing.")
@click.option(
    "--write-space", type=PATH, metavar="FILE", help="Write the space as a .toml file to edit; train nothing."
)
@json_option
def search_command(options: SearchOptions, plan: bool, write_space: Path | None, as_json: bool) -> None:
    """Search for a network, as the paper found EfficientNetV2 (§3.3): by accuracy, training speed and parameters.

    Networks of a space are trained shortly and ranked by the reward A · S^−0.07 · P^−0.05; the best are trained again
    for longer, and the winner is written as a file that zoo train, zoo export and zoo bench stages take:

    \b
    zoo search --data pictures/ --space small --plan
    zoo search --data pictures/ --space small --trials 60
    zoo train runs/search/winner.toml --data pictures/

    DIR gets winner.toml, search.json, report.html, and search.db with every trial. The same command with a larger N
    goes on; several at once on one --store share the work. Ctrl-C loses the training at hand and nothing else.
    """
    from train.processes.stopping import RunStopped
    from zoo.console import log_console, print_json, results_console

    if write_space:
        if plan:
            raise click.UsageError("--plan and --write-space are two things to do: give one of them.")
        from zoo.model.spaces import find_space
        from zoo.model.spaces import write_space as write

        write(write_space, find_space(options.space))
        click.echo(write_space)
        return
    if plan:
        from train.search.plan import plan_search
        from train.search.worker import open_lab

        log_console().print("Measuring a few steps …")
        made = plan_search(open_lab(options), options)
        if as_json:
            print_json(made.to_dict(), indent=None)
            return
        for sentence in made.sentences:
            results_console().print(sentence)
        return
    from train.search.run import REPORT, WINNER, search

    try:
        found = search(options, console=log_console())
    except RunStopped as stopped:
        log_console().print("Stopped. What has ended is kept; the same command goes on.")
        raise click.exceptions.Exit(stopped.exit_code) from stopped
    if as_json:
        print_json(found.to_dict(), indent=None)
        return
    click.echo(f"{found.summary}  {options.out / (WINNER if found.winner else REPORT)}")
