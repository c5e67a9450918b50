"""The reconstruction term: how far an image is from what the decoder makes of its code."""

from torch import Tensor


def half_squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """½‖x − x̂‖² summed over pixels, averaged over the batch."""
    return 0.5 * (x - x_hat).square().flatten(1).sum(dim=1).mean()
