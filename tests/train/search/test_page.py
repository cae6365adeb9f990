"""The page of a search says who won, against what, and how far to trust it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.train.search import made
from train.search.options import SearchOptions
from train.search.page import headlines, render_search
from train.search.result import SearchResult
from train.search.rows import LongTraining, Trial
from train.search.worker import open_lab


def result_of(few: Path, trials: list[Trial], trainings: list[LongTraining]) -> SearchResult:
    options = SearchOptions(space="control", data=str(few), device="cpu", workers=0)
    names = {made.CANDIDATES[1].code: ["b0"]}
    return SearchResult.of(
        lab=open_lab(options), options=options, device="a processor", names=names, trials=trials, trainings=trainings
    )


def long(number: int, top1: float, seed: int = 1) -> LongTraining:
    return LongTraining(code=made.CANDIDATES[number].code, trained=made.trained(top1, seed=seed, epochs=40))


@pytest.fixture
def whole(few: Path) -> SearchResult:
    """Six trials, one of them failed and one stopped early; four finalists, whose order the short trainings had."""
    trials = [made.trial(number, 0.60 + 0.05 * number, ratio=1.0 + 0.1 * number) for number in range(4)]
    failed = replace(made.trial(4, 0.1), state="failed", trained=None, reason="out of <memory>")
    trials += [failed, made.trial(5, 0.2, state="stopped early")]
    return result_of(few, trials, [long(number, 0.70 + 0.05 * number) for number in range(4)])


def test_the_winner_comes_first_with_what_it_is_judged_by(whole: SearchResult) -> None:
    first, *others = headlines(whole)
    assert first.startswith(made.CANDIDATES[3].code) and "85" in first
    assert any("b0's table has a reward" in sentence for sentence in others)
    assert any("τ 1.00" in sentence and "n = 4" in sentence for sentence in others)


def test_the_page_holds_together_and_nothing_in_it_is_markup_by_accident(whole: SearchResult) -> None:
    page = render_search(whole)
    open_tags: list[str] = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag: str, attributes: object) -> None:
            if tag not in ("meta", "br", "img"):
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attributes: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Balance().feed(page)
    assert not open_tags
    assert "out of &lt;memory&gt;" in page and "stopped after 10" in page
    assert all(one.trial.code in page for one in whole.trials)
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_published_tables_have_their_names_in_the_front(whole: SearchResult) -> None:
    front = render_search(whole).split("Accuracy over parameters")[0]
    assert re.search(r'class="tick halo"[^>]*>b0<', front) and re.search(r'class="tick halo"[^>]*>winner<', front)


def test_without_long_trainings_it_says_that_luck_may_have_chosen(few: Path) -> None:
    said = headlines(result_of(few, [made.trial(0, 0.6), made.trial(1, 0.5)], []))
    assert any("partly the luckiest" in sentence for sentence in said)


def test_a_busy_machine_is_told(few: Path) -> None:
    busy = made.trial(0, 0.6)
    assert busy.costs
    busy = replace(busy, costs=replace(busy.costs, step=replace(busy.costs.step, quiet=False)))
    assert any(
        "not quiet while 1 of 2" in sentence for sentence in headlines(result_of(few, [busy, made.trial(1, 0.5)], []))
    )


def test_a_search_in_which_nothing_finished_has_a_page_too(few: Path) -> None:
    failed = replace(made.trial(0, 0.1), state="failed", trained=None, reason="out of memory")
    page = render_search(result_of(few, [failed], []))
    assert "No network was trained to the end of its trial, of 1" in page
