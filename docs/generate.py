"""Writes what the pages of docs/ have from the code: whole pages, one picture, and the blocks marked in the others.

python docs/generate.py           write them
python docs/generate.py --check   exit 1 where one is out of date

A block stands between `<!-- made by make docs: NAME -->` and `<!-- end -->`; `docs/made/` has what makes each. A table
whose last column is for people keeps the words in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from made import (
    architecture,
    commands,
    errors,
    formats,
    measured,
    models,
    picture,
    precisions,
    recipes,
    results,
    rows,
    runs,
    schema,
    spaces,
    stages,
    weights,
)
from made.markdown import StaleError, remake

DOCS = Path(__file__).parent
FILES = {
    "cli.md": commands.page,
    "models.md": models.page,
    "img/architecture.svg": picture.draw,
    "img/stages.svg": stages.draw,
    "passport.schema.json": schema.passport,
    "result.schema.json": schema.result,
}
# By the first word of a block's name; the rest of the name is the maker's.
MAKERS = {
    "tree": architecture.tree,
    "imports": architecture.imports,
    "places": architecture.places,
    "exit-codes": errors.exit_codes,
    "statuses": errors.statuses,
    "format": formats.fields,
    "metrics": formats.metrics,
    "tolerances": precisions.tolerances,
    "builders": precisions.builders,
    "backends": precisions.backends,
    "engine-limits": precisions.limits,
    "gpu-families": precisions.families,
    "recipes": recipes.table,
    "run-folder": runs.files,
    "trackers": runs.trackers,
    "fields": rows.fields,
    "origins": weights.origins,
    "result": results.table,
    "which": models.which,
    "headlines": results.headlines,
    "spaces": spaces.table,
    "sentences": results.sentences,
    "figures": results.figures,
    "measured": measured.engines,
}


def made() -> dict[Path, str]:
    """Every file that has something from the code, as it should be."""
    pages = {DOCS / name: make() for name, make in FILES.items()}
    for path in (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))):
        pages[path] = remake(pages.get(path) or path.read_text(encoding="utf-8"), MAKERS, path.name)
    return pages


def main() -> None:
    """Write the files, or check them."""
    try:
        pages = made()
    except StaleError as error:
        sys.exit(str(error))
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" not in sys.argv:
        for path in stale:
            path.parent.mkdir(exist_ok=True)
            path.write_text(pages[path], encoding="utf-8")
            print(path)
    elif stale:
        sys.exit(f"Out of date: {', '.join(str(path.relative_to(DOCS.parent)) for path in stale)}. Run `make docs`.")


if __name__ == "__main__":
    main()
