"""A network and an objective to a model with its first weights: where the settings of models meet their code."""

from rae_bench.models import autoencoder, networks
from rae_bench.models.autoencoder import Model
from rae_bench.models.layouts.specs import Network, OwnModel, TrainedElsewhere
from rae_bench.models.own import ForeignModel
from rae_bench.models.terms.specs import Objective


def build(network: Network, objective: Objective | None, seed: int) -> Model:
    """A new model; its first weights depend on `seed` alone and leave torch's global generator as it was.

    Raises:
        OwnCodeError: code of a user's own that cannot be used.
    """
    if isinstance(network, OwnModel | TrainedElsewhere):
        with networks.initialising(seed):
            return ForeignModel(network).to(memory_format=networks.MEMORY_ORDER["cpu"])
    assert objective is not None
    return autoencoder.build(network, objective, seed)
