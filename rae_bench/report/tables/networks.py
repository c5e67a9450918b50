"""What networks a study trains, and what they take."""

import pandas as pd

from rae_bench.base.plain import to_plain
from rae_bench.models.layouts.specs import OwnModel, OwnNetworks, TrainedElsewhere
from rae_bench.report.rendering import Table
from rae_bench.study.specs import SummarySpec


def network_table(spec: SummarySpec) -> Table:
    """Every data set's network: its weights, the operations of a pass, and an update's over those of the first.

    Nothing is known of networks of a user's own, and none stands for models that are not trained.
    """
    records: list[dict[str, str | float]] = []
    rows = []
    for dataset, trainings in spec.trainings.items():
        trained = (training.network for training in trainings.values() if training.network.is_optimised)
        network = next((one for one in trained if not isinstance(one, OwnNetworks | OwnModel | TrainedElsewhere)), None)
        if network is None:
            continue
        counts, settings = network.counts, to_plain(network)
        left_out = ("kind", "channels", "size")
        shown = ", ".join(f"{key} {value}" for key, value in settings.items() if key not in left_out)
        update = 3 * counts.arithmetic
        record: dict[str, str | float] = {
            **{"dataset": dataset, "network": network.kind, "weights": counts.parameters},
            **{"encode_flops": counts.encoder, "decode_flops": counts.decoder, "update_flops": update},
        }
        records.append(record)
        ratio = update / float(records[0]["update_flops"])
        passes = [f"{flops / 1e6:.3g}" for flops in (counts.encoder, counts.decoder, update)]
        rows.append([dataset, f"{network.kind} ({shown})", f"{counts.parameters:,.0f}", *passes, f"{ratio:.2f}"])
    return Table(
        "networks",
        "Networks, the same for all models of a data set",
        ["Data set", "Network", "Weights", "Encoding, MFLOP", "Decoding, MFLOP", "Update, MFLOP", "Ratio to the first"],
        rows,
        set(),
        [
            "Weights of all layers, with both heads of a VAE, without biases and norms. Operations: products"
            " of matrices and convolutions, for one image, two a multiply-add; an update takes three passes, more"
            " with a penalty on a derivative."
        ],
        pd.DataFrame(records),
    )
