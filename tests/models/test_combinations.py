"""Which posterior, latent term, reconstruction and regulariser go together: one table, every combination tried."""

import itertools

import pytest
import small
import torch

from rae_bench.base.plain import ConfigError, kinds, parse
from rae_bench.models import autoencoder, objectives

KERNEL = {"kind": "inverse_multiquadratic", "scales": [1.0]}
EXAMPLES = {
    "posterior": {
        "deterministic": {},
        "gaussian": {"log_sigma_bound": 5.0},
        "fixed_gaussian": {"sigma": 0.5},
        "noisy_input": {"sd": 0.1, "bound": 0.1},
        "masked_input": {"share": 0.5, "patch": 4},
        "saturating": {},
        "sphere": {},
        "quantised": {"n_entries": 5, "length": 1, "decay": 0.9, "smoothing": 1e-5},
    },
    "latent": {
        "none": {},
        "kl": {"weight": 0.5},
        "squared_norm": {"weight": 0.5},
        "mmd": {"weight": 0.5, "scales": [1.0]},
        "free_bits": {"weight": 0.5, "floor": 0.1},
        "capacity": {"weight": 0.5, "capacity": 2.0, "updates": 3},
        "total_correlation": {"weight": 0.5, "factor": 2.0, "estimator": "weighted", "images": 20},
        "dip": {"weight": 0.5, "covariance": "means", "off_diagonal": 1.0, "diagonal": 1.0},
        "info": {"weight": 0.5, "alpha": 0.0, "strength": 2.0, "kernel": KERNEL, "diagonal": "left_out"},
        "importance_weighted": {"weight": 0.5, "samples": 2},
        "sigreg": {"weight": 0.5, "slices": 5, "points": 7, "reach": 3.0, "window": 1.0},
        "contractive": {"weight": 0.5},
        "commitment": {"weight": 0.5},
        "mixture_prior": {"weight": 0.5, "n_components": 3},
        "vampprior": {"weight": 0.5, "n_components": 3},
    },
    "reconstruction": {
        "squared_error": {},
        "optimal_variance": {"least_sigma": 0.0},
        "learnt_variance": {"initial_log_sigma": 0.0, "least_sigma": 0.0},
        "bernoulli": {},
        "laplace": {},
    },
    "regulariser": {
        "none": {},
        "weight_l2": {"weight": 0.5, "scope": "all"},
        "gradient_penalty": {"weight": 0.5},
        "output_gradient": {"weight": 0.5},
        "spectral_norm": {
            "power_iterations": 1,
            "scope": "decoder",
            "matrix": "output_channels",
            "initial_iterations": 0,
            "vectors": "constant",
            "evaluation": "fixed",
        },
        "orthogonal_first_layer": {},
    },
}
MADE = {
    part: {kind: parse(small.UNIONS[part], {"kind": kind, **fields}, part) for kind, fields in examples.items()}
    for part, examples in EXAMPLES.items()
}
NO_DENSITY = "latent: {latent!r} needs a posterior with a density; posterior is {posterior!r}"
TOGETHER = (
    "latent: 'commitment' and a posterior 'quantised' belong together: the one holds codes near the other's entries;"
    " found {latent!r} and {posterior!r}"
)
NO_SPACE = "latent: {latent!r} draws codes towards N(0, I), which those of a posterior {posterior!r} cannot follow"
SAME = "latent: {latent!r} is the same of every code of a posterior {posterior!r}"
SPREAD = "latent: {latent!r} is of codes that the image alone moves; those of a posterior {posterior!r} have a spread"
NOT_PLAIN = "reconstruction: 'optimal_variance' is best for a plain mean of errors, not for one of importance weights"
REFUSED = [
    # posteriors, latent terms, reconstructions, regularisers (None: any), and the words
    (
        {"deterministic", "noisy_input", "masked_input", "saturating", "sphere", "quantised"},
        {
            *("kl", "free_bits", "capacity", "total_correlation", "dip", "info", "importance_weighted"),
            *("mixture_prior", "vampprior"),
        },
        None,
        None,
        NO_DENSITY,
    ),
    ({"quantised"}, set(EXAMPLES["latent"]) - {"commitment"}, None, None, TOGETHER),
    (set(EXAMPLES["posterior"]) - {"quantised"}, {"commitment"}, None, None, TOGETHER),
    ({"saturating", "sphere"}, {"mmd", "sigreg"}, None, None, NO_SPACE),
    ({"gaussian"}, {"contractive"}, None, None, SPREAD),
    ({"sphere"}, {"squared_norm"}, None, None, SAME),
    (None, {"importance_weighted"}, {"optimal_variance"}, None, NOT_PLAIN),
]
"""Everything else goes together."""


def words(combination):
    """How a combination is refused; None where it is not."""
    for *rules, said in REFUSED:
        if all(rule is None or kind in rule for kind, rule in zip(combination, rules, strict=True)):
            return said.format(posterior=combination[0], latent=combination[1])
    return None


COMBINATIONS = list(itertools.product(*MADE.values()))


def test_the_table_has_every_kind():
    for part, union in small.UNIONS.items():
        assert set(MADE[part]) == set(kinds(union)), part


@pytest.mark.parametrize("latent", MADE["latent"])
def test_every_combination_is_refused_in_these_words_or_learns(latent):
    """On images in [0, 1]: a finite loss, the weighted sum of its terms, and finite gradients."""
    x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    network = small.images(size=16, latent_dim=3, start_width=4)
    for combination in (one for one in COMBINATIONS if one[1] == latent):
        parts = [MADE[part][kind] for part, kind in zip(MADE, combination, strict=True)]
        if (said := words(combination)) is not None:
            with pytest.raises(ConfigError) as refused:
                small.objective(*parts)
            assert str(refused.value).startswith(said), combination
            continue
        made = small.objective(*parts)
        model = autoencoder.build(network, made, seed=0).train()
        loss = objectives.loss(model, x, made, torch.Generator().manual_seed(1))
        weights = [objectives.weight(term) for term in (made.latent, made.regulariser)]
        expected = loss.reconstruction + weights[0] * loss.latent + weights[1] * loss.regulariser
        torch.testing.assert_close(loss.total, expected, msg=str(combination))
        loss.total.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), (combination, name)
