"""Which rankings survive another way of scoring the same samples."""

import numpy as np
import pandas as pd

from rae_bench.report.ranks import kendall
from rae_bench.report.rendering import Table
from rae_bench.study.specs import SummarySpec
from rae_bench.study.study import OWN


def protocol_table(spec: SummarySpec, panel: pd.DataFrame, dataset: str) -> Table:
    """How far each protocol ranks the rows as the study's own does, in columns N and GMM."""
    own = spec.protocols[dataset][OWN]
    records, rows = [], []
    for name in protocol_order(spec, dataset):
        found = vars(spec.protocols[dataset][name])
        changes = {key: value for key, value in found.items() if value != vars(own)[key]}
        texts = [name.replace("_", " "), ", ".join(f"{key} {value}" for key, value in changes.items()) or "–"]
        for column in ("n", "gmm"):
            base, means = (protocol_means(spec, panel, dataset, one, column) for one in (OWN, name))
            tau = kendall(base, means)
            first = spec.rows[str(means.idxmin())].label if len(means) else "–"
            records.append({"dataset": dataset, "protocol": name, "column": column, "tau": tau, "first": first})
            texts += ["–" if np.isnan(tau) else f"{tau:.2f}", first]
        rows.append(texts)
    return Table(
        f"protocols_{dataset}",
        f"{spec.datasets[dataset].label}: which rankings survive another protocol",
        ["Protocol", "Changes", "tau, N", "first, N", "tau, GMM", "first, GMM"],
        rows,
        set(),
        [
            "The same samples, scored in other ways. tau: Kendall's, of the rows' ranking by mean Fréchet distance over"
            " seeds, against the study's own protocol: 1 the same order, 0 unrelated.",
            f"Own: {', '.join(f'{key} {value}' for key, value in vars(own).items())}.",
        ],
        pd.DataFrame(records),
    )


def protocol_order(spec: SummarySpec, dataset: str) -> list[str]:
    """The study's own protocol, then the others."""
    return [OWN, *sorted(set(spec.protocols[dataset]) - {OWN})]


def protocol_means(spec: SummarySpec, panel: pd.DataFrame, dataset: str, protocol: str, column: str) -> pd.Series:
    """Mean Fréchet distance over seeds of each row that has the column, under one protocol."""
    mine = panel[(panel["dataset"] == dataset) & (panel["protocol"] == protocol)]
    shown = {name: (row.model, row.n if column == "n" else row.gmm) for name, row in spec.competing.items()}
    values = {
        name: mine.loc[(mine["model"] == model) & (mine["density"] == density), "value"]
        for name, (model, density) in shown.items()
    }
    return pd.Series({name: float(found.mean()) for name, found in values.items() if len(found)})
