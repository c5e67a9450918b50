"""Settings no stage could run with are refused by the dataclass that holds them."""

from dataclasses import replace

import pytest

from rae_bench import specs
from rae_bench.plain import ConfigError, parse

GAUSSIAN = {"kind": "gaussian", "log_sigma_bound": 5.0}
OPTIMISATION = {
    "epochs": 2,
    "batch_size": 8,
    "order": "shuffled",
    "learning_rate": 1.0e-3,
    "adam_epsilon": 1.0e-7,
    "schedule": {"kind": "cosine"},
}
CONVOLUTIONAL = {
    "kind": "convolutional",
    "channels": 1,
    "size": 32,
    "kernel": 4,
    "width": 4,
    "start_width": 32,
    "latent_dim": 8,
    "norm_momentum": 0.1,
}
MIXTURE = {
    "kind": "mixture",
    "codes": "mean",
    "n_components": 3,
    "n_init": 1,
    "max_iter": 10,
    "tolerance": 1e-3,
    "reg_covar": 1e-6,
}
DIRICHLET = {**MIXTURE, "kind": "dirichlet_mixture", "concentration": 0.1, "mean_precision": 1.0}
OBJECTIVE = {"posterior": GAUSSIAN, "latent": {"kind": "kl", "weight": 1.0}, "regulariser": {"kind": "none"}}
SECOND_STAGE = {
    "kind": "second_stage",
    "codes": "mean",
    "width": 8,
    "depth": 2,
    "objective": OBJECTIVE,
    "optimisation": OPTIMISATION,
}
NETWORK = {"codes": "sample", "width": 8, "depth": 2, "optimisation": OPTIMISATION}
DATASET = {
    "label": "x",
    "source": {"kind": "face_renderer"},
    "channels": 3,
    "size": 64,
    "n_train": 10,
    "n_validation": 10,
    "n_test": 10,
    "seed": 0,
}
PATCHES = {"kind": "photo_patches", "train_end": 0.6, "validation_end": 0.8, "stride": 4, "min_sd": 12.0}
METRICS = {
    "kernel_subsets": 5,
    "kernel_subset_size": 10,
    "neighbours": 3,
    "coverage_neighbours": 5,
    "prd_clusters": 5,
    "prd_angles": 101,
    "prd_runs": 1,
    "infinity_sizes": 3,
    "half_samples": 2,
    "seed": 0,
}
PROTOCOL = {"reference_split": "test", "rounding": "truncate", "extractor": "pixels", "n_images": 5}
PLATEAU = {"kind": "plateau", "factor": 0.5, "patience": 5, "threshold": 0.0}

VALID = {
    specs.Gaussian: GAUSSIAN,
    specs.FixedGaussian: {"kind": "fixed_gaussian", "sigma": 0.7},
    specs.NoisyInput: {"kind": "noisy_input", "sd": 0.01, "bound": 0.01},
    specs.Optimisation: OPTIMISATION,
    specs.Plateau: PLATEAU,
    specs.ConvolutionalNetwork: CONVOLUTIONAL,
    specs.DenseNetwork: {"kind": "dense", "input_dim": 4, "width": 8, "depth": 2, "latent_dim": 3},
    specs.GaussianMixture: MIXTURE,
    specs.StandardNormal: {"kind": "standard_normal", "codes": "mean"},
    specs.SingleGaussian: {"kind": "gaussian", "codes": "mean", "covariance": "diagonal"},
    specs.DirichletMixture: DIRICHLET,
    specs.KernelDensity: {"kind": "kernel_density", "codes": "mean", "bandwidths": [0.1, 0.2]},
    specs.ImageSubset: {"kind": "subset", "n_components": 5},
    specs.AggregatePosterior: {"kind": "aggregate_posterior", "codes": "sample", "components": {"kind": "all"}},
    specs.SplineFlow: {**NETWORK, "kind": "flow", "layers": "coupling", "transforms": 2, "bins": 4},
    specs.FlowMatching: {**NETWORK, "kind": "flow_matching", "frequencies": 0, "steps": 4},
    specs.SecondStage: SECOND_STAGE,
    specs.DaiWipfSecondStage: {**NETWORK, "kind": "second_stage_dai_wipf", "decoder_noise": True},
    specs.Objective: OBJECTIVE,
    specs.DatasetSpec: DATASET,
    specs.PhotoPatches: PATCHES,
    specs.MnistSubset: {"kind": "mnist_subset", "padding": 2},
    specs.MetricSettings: METRICS,
    specs.Protocol: PROTOCOL,
    specs.GaussianKL: {"kind": "kl", "weight": 1.0},
    specs.SquaredNorm: {"kind": "squared_norm", "weight": 1.0},
    specs.MMD: {"kind": "mmd", "weight": 1.0, "scales": [1.0]},
    specs.WeightL2: {"kind": "weight_l2", "weight": 1.0, "scope": "all"},
    specs.GradientPenalty: {"kind": "gradient_penalty", "weight": 1.0},
    specs.OutputGradient: {"kind": "output_gradient", "weight": 1.0},
    specs.SpectralNorm: {
        "kind": "spectral_norm",
        "power_iterations": 1,
        "scope": "decoder",
        "matrix": "output_channels",
        "initial_iterations": 0,
        "vectors": "constant",
        "evaluation": "fixed",
    },
    specs.Compute: {"device": "cpu", "threads": 1, "tf32": False, "precision": "float32"},
}
IMPOSSIBLE = [
    (specs.Compute, "threads", 1025),  # torch's own limit is a crash
    (specs.DatasetSpec, "seed", -1),
    (specs.PhotoPatches, "min_sd", -1.0),
    (specs.Gaussian, "log_sigma_bound", 0.0),
    (specs.FixedGaussian, "sigma", -0.7),
    (specs.NoisyInput, "sd", 0.0),
    (specs.NoisyInput, "bound", 0.0),
    (specs.Optimisation, "epochs", 0),
    (specs.Optimisation, "batch_size", 1),  # batch norm and MMD need pairs
    (specs.Optimisation, "order", "sorted"),
    (specs.Optimisation, "learning_rate", 0.0),
    (specs.Optimisation, "adam_epsilon", 0.0),
    (specs.Plateau, "factor", 1.0),  # torch: factor should be below 1
    (specs.Plateau, "factor", 0.0),
    (specs.Plateau, "patience", 0),
    (specs.ConvolutionalNetwork, "size", 28),
    (specs.ConvolutionalNetwork, "kernel", 3),
    (specs.ConvolutionalNetwork, "width", 0),
    (specs.ConvolutionalNetwork, "start_width", 0),
    (specs.ConvolutionalNetwork, "latent_dim", -1),
    (specs.ConvolutionalNetwork, "norm_momentum", 0.0),
    (specs.ConvolutionalNetwork, "norm_momentum", 1.5),  # the weight of the newest batch in a mean
    (specs.DenseNetwork, "depth", 0),
    (specs.GaussianMixture, "n_components", 0),
    (specs.GaussianMixture, "tolerance", 0.0),
    (specs.GaussianMixture, "max_iter", 0),
    (specs.GaussianMixture, "codes", "means"),
    (specs.SingleGaussian, "covariance", "spherical"),
    (specs.DirichletMixture, "concentration", 0.0),
    (specs.DirichletMixture, "mean_precision", 0.0),
    (specs.DirichletMixture, "max_iter", 0),
    (specs.KernelDensity, "bandwidths", []),
    (specs.KernelDensity, "bandwidths", [0.0, 0.1]),
    (specs.KernelDensity, "bandwidths", [0.2, 0.1]),
    (specs.ImageSubset, "n_components", 0),
    (specs.SplineFlow, "layers", "affine"),
    (specs.SplineFlow, "transforms", 0),
    (specs.SplineFlow, "bins", 0),
    (specs.FlowMatching, "steps", 0),
    (specs.FlowMatching, "frequencies", -1),
    (specs.DaiWipfSecondStage, "width", 0),
    (specs.DaiWipfSecondStage, "decoder_noise", 1),
    (specs.SecondStage, "width", 0),
    (specs.SecondStage, "depth", 0),
    (specs.DatasetSpec, "n_test", 0),
    (specs.DatasetSpec, "channels", 0),
    (specs.PhotoPatches, "stride", 0),
    (specs.PhotoPatches, "train_end", 0.9),  # beyond validation_end
    (specs.PhotoPatches, "validation_end", 1.0),  # nothing left to test on
    (specs.MnistSubset, "padding", -1),
    (specs.MetricSettings, "neighbours", 0),
    (specs.MetricSettings, "kernel_subset_size", 1),  # the unbiased estimate divides by n (n - 1)
    (specs.MetricSettings, "kernel_subsets", 0),
    (specs.MetricSettings, "coverage_neighbours", 0),
    (specs.MetricSettings, "prd_clusters", 0),
    (specs.MetricSettings, "prd_angles", 1),
    (specs.MetricSettings, "prd_runs", 0),
    (specs.MetricSettings, "infinity_sizes", 1),  # a line needs two points
    (specs.MetricSettings, "half_samples", 1),  # an SD needs two values
    (specs.MetricSettings, "seed", -1),
    (specs.Protocol, "reference_split", "all"),
    (specs.Protocol, "rounding", "floor"),
    (specs.Protocol, "extractor", "inception"),
    (specs.Protocol, "n_images", 0),
    (specs.GaussianKL, "weight", 0.0),
    (specs.SquaredNorm, "weight", 0.0),
    (specs.MMD, "weight", -1.0),
    (specs.MMD, "scales", []),
    (specs.MMD, "scales", [1.0, 0.0]),
    (specs.WeightL2, "weight", 0.0),
    (specs.WeightL2, "scope", "dense"),
    (specs.GradientPenalty, "weight", 0.0),
    (specs.OutputGradient, "weight", 0.0),
    (specs.SpectralNorm, "power_iterations", 0),
    (specs.SpectralNorm, "initial_iterations", -1),
    (specs.SpectralNorm, "scope", "encoder"),
    (specs.Compute, "threads", 0),
    (specs.Compute, "device", "gpu"),
    (specs.Compute, "tf32", True),  # on a CPU
    (specs.Compute, "precision", "float16"),
]


@pytest.mark.parametrize("kind", VALID)
def test_possible_settings_are_accepted(kind):
    assert isinstance(parse(kind, VALID[kind], "x"), kind)


@pytest.mark.parametrize(("kind", "key", "value"), IMPOSSIBLE)
def test_impossible_settings_are_refused_by_name(kind, key, value):
    with pytest.raises(ConfigError, match=rf"^x\.{key}: ") as error:
        parse(kind, {**VALID[kind], key: value}, "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("posterior", [{"kind": "deterministic"}, {"kind": "noisy_input", "sd": 0.1, "bound": 0.1}])
def test_a_kl_needs_a_posterior_with_a_density(posterior):
    kind = posterior["kind"]
    with pytest.raises(ConfigError, match=rf"^x\.latent: 'kl' needs a posterior with a density; posterior is '{kind}'"):
        parse(specs.Objective, {**OBJECTIVE, "posterior": posterior}, "x")


def test_a_references_file_is_named_for_people_and_differs_with_every_setting():
    made = specs.ReferenceSpec(
        version=1,
        dataset=parse(specs.DatasetSpec, DATASET, "x"),
        split="test",
        n_images=9,
        extractor="pixels",
        neighbours=5,
        compute=specs.Compute("cpu", 1, False, "float32"),
    )
    changes = [
        *({"version": 2}, {"split": "train"}, {"n_images": 8}, {"extractor": "digit_classifier"}, {"neighbours": 0}),
        {"dataset": parse(specs.DatasetSpec, {**DATASET, "seed": 1}, "x")},
        {"compute": specs.Compute("cpu", 2, False, "float32")},
    ]
    names = {replace(made, **change).name for change in changes} | {made.name}
    assert len(names) == len(changes) + 1
    assert made.name.startswith("test.9.pixels.")


def test_only_drawn_images_are_synthetic():
    drawn = parse(specs.DatasetSpec, DATASET, "x")
    photographed = parse(specs.DatasetSpec, {**DATASET, "source": PATCHES}, "x")
    assert (drawn.is_synthetic, photographed.is_synthetic) == (True, False)
