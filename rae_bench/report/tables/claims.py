"""The paper's claims, held against the results."""

import pandas as pd

from rae_bench.report.claims import claims_table
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import COLUMNS, cell_values
from rae_bench.study.specs import SummarySpec


def verdict_table(spec: SummarySpec, frame: pd.DataFrame) -> Table:
    """Per claim and data set how many comparisons are supported, undecided and contradicted."""
    data, summary = claims_table(
        {dataset: _paired(spec, frame, dataset) for dataset in spec.datasets},
        {name: row.family for name, row in spec.ordered_rows.items()},
        {name: row.label for name, row in spec.ordered_rows.items()},
    )
    return Table(
        "claims",
        "The paper's claims, held against these results",
        [
            "Claim (Ghosh et al. 2020, section 6)",
            "Data set",
            "Supported",
            "Undecided",
            "Contradicted",
            "Supported after correction",
        ],
        [[str(text) for text in row] for row in summary],
        set(),
        [
            "Each comparison is a difference of Fréchet distances, paired by training seed, with a 95 % t-interval:"
            " supported where the interval lies on the claimed side of zero, contradicted where on the other,"
            " undecided where it holds zero. Every comparison with its interval: claims.csv.",
            "The three counts are uncorrected: of 20 true ties one is expected to be called. The last column counts"
            " those whose p stays below 0.05 after Holm's correction over all comparisons of the data set.",
        ],
        data,
    )


def _paired(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> dict[tuple[str, str], pd.Series]:
    return {
        (name, column): cell_values(frame, dataset, row, column)
        for name, row in spec.ordered_rows.items()
        for column in COLUMNS
    }
