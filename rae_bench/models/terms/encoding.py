"""The pass through the encoder: posteriors, codes, and the latent terms that need more than codes.

    contractive penalty     ‖∂z/∂x‖²_F, z the code and x the image                (Rifai et al. 2011, eq. 4)
    KL to a learnt prior    log q(z|x) − log p(z), z ~ q                          (Tomczak and Welling 2018, eq. 2)

The first is a derivative of the pass that gives codes; the second needs the encoder as it was before that pass.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rae_bench.models.autoencoder import Autoencoder, Codes
from rae_bench.models.terms.latent import log_density
from rae_bench.models.terms.specs import Contractive, Latent, MixturePrior, VampPrior


def encode(
    model: Autoencoder, x: Tensor, term: Latent, noise: Mapping[str, Tensor]
) -> tuple[Codes, Tensor, Tensor | None]:
    """The posteriors of images x, a code of each z (B, d), and the value of `term`, unweighted: a scalar.

    The value is None where `term` is no part of this pass (`latent_term` gives it then). `noise` holds what
    `Autoencoder.draw_with` needs, and the term's own.
    """
    if isinstance(term, Contractive):
        return _with_contraction(model, x, noise)
    if isinstance(term, MixturePrior | VampPrior):
        # before x moves the running moments of batch norm, which pseudo-inputs are encoded with
        prior = model.prior_components()
        codes, z = model.draw_with(x, noise)
        return codes, z, (log_density(z, codes) - log_mixture(z, prior)).mean()
    codes, z = model.draw_with(x, noise)
    return codes, z, None


def _with_contraction(model: Autoencoder, x: Tensor, noise: Mapping[str, Tensor]) -> tuple[Codes, Tensor, Tensor]:
    """Posteriors, codes and an unbiased estimate of the batch mean of ‖J‖²_F, with J = ∂z/∂x of each image.

    For u ~ N(0, I), E‖Jᵀu‖² = ‖J‖²_F; Jᵀu comes backwards, of the pass that gives z. x is the image before it is made
    noisy or masked: what is hidden does not move a code. In training mode batch norm makes z a function of the whole
    batch; J then holds how an image moves the other codes, too.
    """
    is_differentiable = torch.is_grad_enabled()
    with torch.enable_grad():  # validation needs the derivative as well, but nothing of it
        x = x.detach().requires_grad_()
        codes, z = model.draw_with(x, noise)
        direction = noise["contraction"].to(z.dtype)
        (moved,) = torch.autograd.grad((z * direction).sum(), x, create_graph=is_differentiable)
    return codes, z, moved.square().flatten(1).sum(dim=1).mean()


def log_mixture(z: Tensor, components: Codes) -> Tensor:
    """Log of the mean of N(z; mean_k, diag sigma_k²) over the K `components`, (B,), of codes z (B, d)."""
    return log_density(z[:, None], components).logsumexp(dim=1) - math.log(len(components.mean))
