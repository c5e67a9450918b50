"""Settings no stage could run with are refused by the dataclass that holds them."""

import contextlib
import re
from dataclasses import replace

import pytest

from rae_bench.base.plain import ConfigError, parse
from rae_bench.base.specs import Compute
from rae_bench.data.specs import DatasetSpec, MnistSubset, PhotoPatches
from rae_bench.densities.specs import (
    AggregatePosterior,
    AutoregressiveIndices,
    CategoricalIndices,
    DaiWipfSecondStage,
    DirichletMixture,
    FlowMatching,
    GaussianMixture,
    ImageSubset,
    KernelDensity,
    LearntPriorDensity,
    SecondStage,
    SelectedMixture,
    SingleGaussian,
    SplineFlow,
    StandardNormal,
    UniformIndices,
)
from rae_bench.models.layouts.specs import (
    ConvolutionalNetwork,
    DenseImageNetwork,
    DenseNetwork,
    PatchTransformer,
    ResidualNetwork,
)
from rae_bench.models.specs import Optimisation, Plateau, TrainingSpec
from rae_bench.models.terms.specs import (
    MMD,
    Capacity,
    Commitment,
    Contractive,
    Deterministic,
    Disentangled,
    FixedGaussian,
    FreeBits,
    Gaussian,
    GaussianKL,
    GradientPenalty,
    ImportanceWeighted,
    InfoVAE,
    LearntVariance,
    MaskedInput,
    MixturePrior,
    NoisyInput,
    Objective,
    OptimalVariance,
    OrthogonalFirstLayer,
    OutputGradient,
    Quantised,
    Saturating,
    SIGReg,
    SpectralNorm,
    Sphere,
    SquaredNorm,
    TotalCorrelation,
    VampPrior,
    WeightL2,
)
from rae_bench.scoring.specs import MetricSettings, Protocol, ReferenceSpec

GAUSSIAN = {"kind": "gaussian", "log_sigma_bound": 5.0}
OPTIMISATION = {
    "epochs": 2,
    "batch_size": 8,
    "order": "shuffled",
    "learning_rate": 1.0e-3,
    "adam_epsilon": 1.0e-7,
    "schedule": {"kind": "cosine"},
}
OF_IMAGES = {"channels": 1, "size": 32, "latent_dim": 8}
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
FOLDER = {"kind": "folder", "path": "x", "split": "seeded", "filter": "box", "crop": 0, "padding": 0}
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
PATCHES = {
    "kind": "photo_patches",
    "block": 64,
    "gap": 0,
    "train_share": 0.6,
    "validation_share": 0.2,
    "stride": 4,
    "min_sd": 12.0,
}
INFO = {
    "kind": "info",
    "weight": 1.0,
    "alpha": 0.5,
    "strength": 2.0,
    "kernel": {"kind": "squared_exponential"},
    "diagonal": "kept",
}
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
PROTOCOL = {"reference_split": "test", "rounding": "truncate", "extractor": "pixels", "n_images": 5, "n_generated": 9}
SIGREG = {"kind": "sigreg", "weight": 1.0, "slices": 8, "points": 17, "reach": 5.0, "window": 1.0}
PLATEAU = {"kind": "plateau", "factor": 0.5, "patience": 5, "threshold": 0.0}

VALID = {
    Gaussian: GAUSSIAN,
    FixedGaussian: {"kind": "fixed_gaussian", "sigma": 0.7},
    NoisyInput: {"kind": "noisy_input", "sd": 0.01, "bound": 0.01},
    MaskedInput: {"kind": "masked_input", "share": 0.25, "patch": 1},
    Saturating: {"kind": "saturating"},
    Sphere: {"kind": "sphere"},
    Quantised: {"kind": "quantised", "n_entries": 4, "length": 1, "decay": 0.9, "smoothing": 1e-5},
    Commitment: {"kind": "commitment", "weight": 1.0},
    Optimisation: OPTIMISATION,
    Plateau: PLATEAU,
    ConvolutionalNetwork: CONVOLUTIONAL,
    DenseNetwork: {"kind": "dense", "input_dim": 4, "width": 8, "depth": 2, "latent_dim": 3},
    ResidualNetwork: {**OF_IMAGES, "kind": "residual", "width": 4, "groups": 2},
    DenseImageNetwork: {**OF_IMAGES, "kind": "dense_images", "width": 4, "depth": 1},
    PatchTransformer: {
        **{**OF_IMAGES, "kind": "transformer", "patch": 8},
        **{"width": 4, "depth": 1, "heads": 2, "expansion": 2},
    },
    GaussianMixture: MIXTURE,
    StandardNormal: {"kind": "standard_normal", "codes": "mean"},
    SingleGaussian: {"kind": "gaussian", "codes": "mean", "covariance": "diagonal"},
    SelectedMixture: {key: value for key, value in MIXTURE.items() if key != "n_components"}
    | {"kind": "selected_mixture", "grid": [1, 2]},
    DirichletMixture: DIRICHLET,
    KernelDensity: {"kind": "kernel_density", "codes": "mean", "bandwidths": [0.1, 0.2]},
    ImageSubset: {"kind": "subset", "n_components": 5},
    AggregatePosterior: {"kind": "aggregate_posterior", "codes": "sample", "components": {"kind": "all"}},
    SplineFlow: {**NETWORK, "kind": "flow", "layers": "coupling", "transforms": 2, "bins": 4},
    AutoregressiveIndices: {**NETWORK, "kind": "autoregressive_indices"},
    FlowMatching: {**NETWORK, "kind": "flow_matching", "frequencies": 0, "steps": 4},
    SecondStage: SECOND_STAGE,
    DaiWipfSecondStage: {**NETWORK, "kind": "second_stage_dai_wipf", "decoder_noise": True},
    Objective: OBJECTIVE,
    DatasetSpec: DATASET,
    PhotoPatches: PATCHES,
    MnistSubset: {"kind": "mnist_subset", "padding": 2},
    MetricSettings: METRICS,
    Protocol: PROTOCOL,
    GaussianKL: {"kind": "kl", "weight": 1.0},
    SquaredNorm: {"kind": "squared_norm", "weight": 1.0},
    MMD: {"kind": "mmd", "weight": 1.0, "scales": [1.0]},
    FreeBits: {"kind": "free_bits", "weight": 1.0, "floor": 0.5},
    Capacity: {"kind": "capacity", "weight": 1.0, "capacity": 5.0, "updates": 10},
    TotalCorrelation: {
        "kind": "total_correlation",
        "weight": 1.0,
        "factor": 6.0,
        "estimator": "weighted",
        "images": 10,
    },
    Disentangled: {"kind": "dip", "weight": 1.0, "covariance": "means", "off_diagonal": 1.0, "diagonal": 1.0},
    InfoVAE: INFO,
    ImportanceWeighted: {"kind": "importance_weighted", "weight": 1.0, "samples": 5},
    OptimalVariance: {"kind": "optimal_variance", "least_sigma": 0.0},
    LearntVariance: {"kind": "learnt_variance", "initial_log_sigma": 0.0, "least_sigma": 0.0},
    Contractive: {"kind": "contractive", "weight": 1.0},
    SIGReg: SIGREG,
    MixturePrior: {"kind": "mixture_prior", "weight": 1.0, "n_components": 5},
    VampPrior: {"kind": "vampprior", "weight": 1.0, "n_components": 5},
    LearntPriorDensity: {"kind": "learnt_prior", "codes": "sample"},
    UniformIndices: {"kind": "uniform_indices", "codes": "mean"},
    CategoricalIndices: {"kind": "categorical_indices", "codes": "mean", "pseudo_count": 0.5},
    WeightL2: {"kind": "weight_l2", "weight": 1.0, "scope": "all"},
    GradientPenalty: {"kind": "gradient_penalty", "weight": 1.0},
    OutputGradient: {"kind": "output_gradient", "weight": 1.0},
    OrthogonalFirstLayer: {"kind": "orthogonal_first_layer"},
    SpectralNorm: {
        "kind": "spectral_norm",
        "power_iterations": 1,
        "scope": "decoder",
        "matrix": "output_channels",
        "initial_iterations": 0,
        "vectors": "constant",
        "evaluation": "fixed",
    },
    Compute: {"device": "cpu", "threads": 1, "tf32": False, "precision": "float32"},
}
IMPOSSIBLE = [
    (Compute, "threads", 1025),  # torch's own limit is a crash
    (DatasetSpec, "seed", -1),
    (PhotoPatches, "min_sd", -1.0),
    (Gaussian, "log_sigma_bound", 0.0),
    (FixedGaussian, "sigma", -0.7),
    (NoisyInput, "sd", 0.0),
    (NoisyInput, "bound", 0.0),
    (Optimisation, "epochs", 0),
    (Optimisation, "batch_size", 1),  # batch norm and MMD need pairs
    (Optimisation, "order", "sorted"),
    (Optimisation, "learning_rate", 0.0),
    (Optimisation, "adam_epsilon", 0.0),
    (Plateau, "factor", 1.0),  # torch: factor should be below 1
    (Plateau, "factor", 0.0),
    (Plateau, "patience", 0),
    (ConvolutionalNetwork, "size", 28),
    (ConvolutionalNetwork, "kernel", 3),
    (ConvolutionalNetwork, "width", 0),
    (ConvolutionalNetwork, "start_width", 0),
    (ConvolutionalNetwork, "latent_dim", -1),
    (ConvolutionalNetwork, "norm_momentum", 0.0),
    (ConvolutionalNetwork, "norm_momentum", 1.5),  # the weight of the newest batch in a mean
    (DenseNetwork, "depth", 0),
    (ResidualNetwork, "groups", 3),  # of a width of 4
    (ResidualNetwork, "groups", 0),
    (ResidualNetwork, "size", 28),
    (DenseImageNetwork, "depth", 0),
    (PatchTransformer, "patch", 16),  # does not divide 24
    (PatchTransformer, "heads", 3),
    (PatchTransformer, "width", 2),
    (PatchTransformer, "expansion", 0),
    (SIGReg, "slices", 0),
    (MixturePrior, "n_components", 0),
    (VampPrior, "n_components", 0),
    (Quantised, "n_entries", 1),
    (Quantised, "length", 0),
    (Quantised, "decay", 1.0),
    (Quantised, "smoothing", 0.0),
    (CategoricalIndices, "pseudo_count", 0.0),
    (SIGReg, "points", 1),
    (SIGReg, "reach", 0.0),
    (SIGReg, "window", 0.0),
    (MaskedInput, "share", 0.0),
    (MaskedInput, "share", 1.0),
    (MaskedInput, "patch", 0),
    (GaussianMixture, "n_components", 0),
    (GaussianMixture, "tolerance", 0.0),
    (GaussianMixture, "max_iter", 0),
    (GaussianMixture, "codes", "means"),
    (SingleGaussian, "covariance", "spherical"),
    (DirichletMixture, "concentration", 0.0),
    (DirichletMixture, "mean_precision", 0.0),
    (DirichletMixture, "max_iter", 0),
    (SelectedMixture, "grid", [2]),  # nothing to select from
    (SelectedMixture, "grid", [2, 1]),
    (SelectedMixture, "grid", [0, 1]),
    (KernelDensity, "bandwidths", []),
    (KernelDensity, "bandwidths", [0.0, 0.1]),
    (KernelDensity, "bandwidths", [0.2, 0.1]),
    (ImageSubset, "n_components", 0),
    (SplineFlow, "layers", "affine"),
    (SplineFlow, "transforms", 0),
    (SplineFlow, "bins", 0),
    (FlowMatching, "steps", 0),
    (FlowMatching, "frequencies", -1),
    (DaiWipfSecondStage, "width", 0),
    (DaiWipfSecondStage, "decoder_noise", 1),
    (SecondStage, "width", 0),
    (SecondStage, "depth", 0),
    (DatasetSpec, "n_test", 0),
    (DatasetSpec, "channels", 1),  # of drawn faces
    (DatasetSpec, "source", {**FOLDER, "padding": 32}),  # as wide as the image
    (DatasetSpec, "channels", 0),
    (PhotoPatches, "stride", 0),
    (PhotoPatches, "train_share", 0.8),  # nothing left to test on
    (PhotoPatches, "validation_share", 0.0),
    (PhotoPatches, "gap", -1),
    (PhotoPatches, "block", 0),
    (DatasetSpec, "source", {**PATCHES, "block": 63}),  # less than a patch
    (MnistSubset, "padding", -1),
    (MetricSettings, "neighbours", 0),
    (MetricSettings, "kernel_subset_size", 1),  # the unbiased estimate divides by n (n - 1)
    (MetricSettings, "kernel_subsets", 0),
    (MetricSettings, "coverage_neighbours", 0),
    (MetricSettings, "prd_clusters", 0),
    (MetricSettings, "prd_angles", 1),
    (MetricSettings, "prd_runs", 0),
    (MetricSettings, "infinity_sizes", 1),  # a line needs two points
    (MetricSettings, "half_samples", 1),  # an SD needs two values
    (MetricSettings, "seed", -1),
    (Protocol, "reference_split", "all"),
    (Protocol, "rounding", "floor"),
    (Protocol, "extractor", "inception"),
    (Protocol, "n_images", 0),
    (GaussianKL, "weight", 0.0),
    (SquaredNorm, "weight", 0.0),
    (MMD, "weight", -1.0),
    (MMD, "scales", []),
    (MMD, "scales", [1.0, 0.0]),
    (FreeBits, "floor", 0.0),  # a KL
    (Capacity, "capacity", 0.0),  # a KL
    (Capacity, "updates", 0),
    (TotalCorrelation, "factor", 0.0),
    (TotalCorrelation, "estimator", "exact"),
    (TotalCorrelation, "images", 1),
    (Disentangled, "covariance", "code"),
    (Disentangled, "off_diagonal", 0.0),
    (Disentangled, "diagonal", -1.0),
    (InfoVAE, "alpha", 1.1),  # a KL that is rewarded
    (InfoVAE, "alpha", -1.0),  # an MMD of no weight
    (InfoVAE, "diagonal", "dropped"),
    (ImportanceWeighted, "samples", 0),
    (OptimalVariance, "least_sigma", -0.1),
    (LearntVariance, "least_sigma", -0.1),
    (WeightL2, "weight", 0.0),
    (WeightL2, "scope", "dense"),
    (GradientPenalty, "weight", 0.0),
    (OutputGradient, "weight", 0.0),
    (SpectralNorm, "power_iterations", 0),
    (SpectralNorm, "initial_iterations", -1),
    (SpectralNorm, "scope", "encoder"),
    (Compute, "threads", 0),
    (Compute, "device", "gpu"),
    (Compute, "tf32", True),  # on a CPU
    (Compute, "precision", "float16"),
]


@pytest.mark.parametrize("kind", VALID)
def test_possible_settings_are_accepted(kind):
    assert isinstance(parse(kind, VALID[kind], "x"), kind)


@pytest.mark.parametrize(("kind", "key", "value"), IMPOSSIBLE)
def test_impossible_settings_are_refused_by_name(kind, key, value):
    with pytest.raises(ConfigError, match=rf"^x\.{key}(\[\d\]|\.padding|\.block)?: ") as error:
        parse(kind, {**VALID[kind], key: value}, "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("latent", [GaussianKL, MixturePrior, VampPrior])
@pytest.mark.parametrize("posterior", [Deterministic, NoisyInput, MaskedInput, Saturating, Sphere])
def test_a_kl_needs_a_posterior_with_a_density(posterior, latent):
    parts = {"posterior": VALID.get(posterior, {"kind": "deterministic"}), "latent": VALID[latent]}
    kinds = [part["kind"] for part in parts.values()]
    told = rf"^x\.latent: '{kinds[1]}' needs a posterior with a density; posterior is '{kinds[0]}'"
    with pytest.raises(ConfigError, match=told):
        parse(Objective, {**OBJECTIVE, **parts}, "x")


@pytest.mark.parametrize("posterior", ["saturating", "sphere"])
@pytest.mark.parametrize("latent", [MMD, SIGReg])
def test_bounded_codes_cannot_be_drawn_towards_a_normal_law(posterior, latent):
    kind = VALID[latent]["kind"]
    with pytest.raises(ConfigError, match=rf"^x\.latent: '{kind}' draws codes towards N\(0, I\), .* '{posterior}'"):
        parse(Objective, {**OBJECTIVE, "posterior": {"kind": posterior}, "latent": VALID[latent]}, "x")


def test_a_contraction_needs_codes_that_the_image_alone_moves():
    contractive = {**OBJECTIVE, "latent": VALID[Contractive]}
    with pytest.raises(ConfigError, match=r"^x\.latent: 'contractive' is of codes that .*'gaussian'"):
        parse(Objective, {**contractive, "posterior": VALID[Gaussian]}, "x")
    for posterior in (FixedGaussian, NoisyInput, MaskedInput, Saturating, Sphere):
        parse(Objective, {**contractive, "posterior": VALID[posterior]}, "x")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"posterior": VALID[Quantised], "latent": VALID[Commitment]},
            "posterior: 'quantised' is of the codes of ",
        ),
        ({"latent": VALID[MixturePrior]}, "latent: 'mixture_prior' learns a prior; a second stage has N"),
        ({"latent": VALID[VampPrior]}, "latent: 'vampprior' learns a prior; a second stage has N"),
        (
            {"regulariser": {**VALID[WeightL2], "scope": "convolutions"}},
            "regulariser.scope: 'convolutions', of which ",
        ),
    ],
)
def test_a_second_stage_is_sampled_from_n_0_i_and_has_no_images(changed, said):
    with pytest.raises(ConfigError, match=rf"^x\.objective\.{re.escape(said)}"):
        parse(SecondStage, {**SECOND_STAGE, "objective": {**OBJECTIVE, **changed}}, "x")


@pytest.mark.parametrize(
    ("length", "said"), [(2, None), (3, r"^x\.objective\.posterior\.length: 3 must divide the 8 ")]
)
def test_a_codebooks_vectors_divide_a_code(length, said):
    posterior = {**VALID[Quantised], "length": length}
    given = {
        "version": 1,
        "network": CONVOLUTIONAL,
        "objective": {**OBJECTIVE, "posterior": posterior, "latent": VALID[Commitment]},
        "optimisation": OPTIMISATION,
        "validation_split": "validation",
        "compute": VALID[Compute],
    }
    with contextlib.nullcontext() if said is None else pytest.raises(ConfigError, match=said):
        parse(TrainingSpec, given, "x")


def test_codes_on_the_sphere_have_no_norm_to_penalise():
    objective = {**OBJECTIVE, "posterior": {"kind": "sphere"}, "latent": VALID[SquaredNorm]}
    with pytest.raises(
        ConfigError, match=r"^x\.latent: 'squared_norm' is the same of every code of a posterior 'sphere'"
    ):
        parse(Objective, objective, "x")


def test_a_references_file_is_named_for_people_and_differs_with_every_setting():
    made = ReferenceSpec(
        version=1,
        dataset=parse(DatasetSpec, DATASET, "x"),
        split="test",
        n_images=9,
        extractor="pixels",
        neighbours=5,
        compute=Compute("cpu", 1, False, "float32"),
    )
    changes = [
        *({"version": 2}, {"split": "train"}, {"n_images": 8}, {"extractor": "digit_classifier"}, {"neighbours": 0}),
        {"dataset": parse(DatasetSpec, {**DATASET, "seed": 1}, "x")},
        {"compute": Compute("cpu", 2, False, "float32")},
    ]
    names = {replace(made, **change).name for change in changes} | {made.name}
    assert len(names) == len(changes) + 1
    assert made.name.startswith("test.9.pixels.")


def test_only_drawn_images_are_synthetic():
    drawn = parse(DatasetSpec, DATASET, "x")
    photographed = parse(DatasetSpec, {**DATASET, "source": PATCHES}, "x")
    assert (drawn.source.is_synthetic, photographed.source.is_synthetic) == (True, False)
