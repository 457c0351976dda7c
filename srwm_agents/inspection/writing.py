"""All files of an inspection, written so that they belong together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from srwm_agents.extras import require
from srwm_agents.files import write_together
from srwm_agents.inspection.recording import Recording

NAMES = ("inspection.mp4", "inspection.png", "inspection.csv", "inspection.parquet", "inspection.html")
"""What an inspection may leave; where the page is, all are of one inspection."""


def write_inspection(folder: Path, recording: Recording, said: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Write ``inspection.mp4``, ``.png``, ``.parquet`` (``.csv`` where pyarrow cannot be imported) and ``.html``.

    Args:
        folder: it is made if it is missing; files of these names are replaced.
        recording: with at least one step.
        said: called with the name of each file when it is begun.

    Raises:
        ValueError: nothing was recorded.
        MissingPackageError: a package of the extra ``inspect`` is not installed.
        OSError: the folder cannot be written; what was there stays.
    """
    if not recording.tracks or not len(recording.tracks[0]):
        raise ValueError("nothing was recorded: no step was taken while the recorder listened")
    require("inspect", "pandas", "matplotlib", "imageio", "av", "PIL")
    from srwm_agents.inspection.film import write_film
    from srwm_agents.inspection.page import make_page
    from srwm_agents.inspection.summary import draw_summary

    def told(file: Path, write: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def run(temporary: Path) -> None:
            said(file.name)
            write(temporary)

        return run

    numbers = folder / ("inspection.csv" if why_no_parquet() else "inspection.parquet")
    contents = {
        folder / "inspection.mp4": lambda path: write_film(path, recording),
        folder / "inspection.png": lambda path: draw_summary(path, recording),
        numbers: lambda path: _write_numbers(path, recording),
        folder / "inspection.html": lambda path: path.write_text(make_page(recording), encoding="utf-8"),
    }
    return write_together({file: told(file, write) for file, write in contents.items()})


def why_no_parquet() -> str | None:
    """Why Parquet cannot be written, in one line; None if it can.

    pyarrow is optional, and one that is installed may not go with the NumPy that is there.
    """
    try:
        import pyarrow  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        return str(error).splitlines()[0]
    return None


def _write_numbers(path: Path, recording: Recording) -> None:
    import pandas as pd

    table = pd.DataFrame(recording.table())
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, float_format="%.7g")
