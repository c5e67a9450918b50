"""The vocabulary of studies (`workflow/config/*.yaml`): one entry per thing, checked as entries name each other.

A study's own entries stand beside the suite's.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from pydantic import PositiveFloat

from rae_bench.base.own import OwnCode
from rae_bench.base.plain import ConfigError, Plain, kinds, parse, to_plain, unknown
from rae_bench.base.specs import Count
from rae_bench.densities.specs import Density, Need
from rae_bench.models.layouts.specs import NETWORK_SIZES
from rae_bench.models.terms.specs import (
    SQUARED_ERROR,
    Latent,
    LearntPrior,
    Objective,
    Posterior,
    Quantised,
    Reconstruction,
    Regulariser,
)
from rae_bench.scoring.specs import ImageSets, MetricSettings
from rae_bench.study.protocols import ProtocolEntry, Setting, parse_settings
from rae_bench.study.specs import Family, Row
from rae_bench.study.stated import laid
from rae_bench.study.study import Budget, DatasetEntry
from rae_bench.study.yaml_files import read_yaml

POINT = "_point"
"""Joins a row's name and the number of a search point."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""What can stand in a path: the same file on every disk, and a log's name, of three of these, below 255 bytes."""
_TAKEN = re.compile("datasets|references|calibrations|logs|tables|figures|con|prn|aux|nul|com[0-9]|lpt[0-9]")
"""Folders of the suite's own beside those named by studies and data sets; and devices of Windows, in any folder."""


@dataclass(frozen=True)
class Terms:
    """What an objective is made of; the weights of its terms stand elsewhere, per data set.

    `reconstruction`: the data set's where it is None.
    """

    posterior: Posterior
    latent: dict[str, Plain]
    regulariser: dict[str, Plain]
    reconstruction: Reconstruction | None = field(default=None, kw_only=True)


Weights = dict[str, PositiveFloat]
"""Weights of an objective's terms, under `latent` and `regulariser`; a term without a weight has no entry."""


@dataclass(frozen=True)
class ModelEntry(Terms):
    """An entry of `models.yaml`: its terms, their weights by data set, and the table row it makes.

    `n` and `gmm`: the densities in the row's columns. `network`: the budget's, or none but a linear layer.
    """

    label: str
    family: Family
    n: str
    gmm: str
    weights: dict[str, Weights]
    network: Literal["budget", "linear"] = "budget"

    @property
    def offers(self) -> frozenset[Need]:
        """What the model has that a density may need: a density of its codes, a prior of its KL term, a codebook."""
        learns_prior = kinds(Latent).get(str(self.latent.get("kind"))) in get_args(LearntPrior)
        has = {
            "a posterior": self.posterior.has_density,
            "a learnt prior": learns_prior,
            "a codebook": isinstance(self.posterior, Quantised),
        }
        return frozenset(need for need in get_args(Need) if has[need])


@dataclass(frozen=True)
class OwnModelEntry:
    """A model of a user's own with its own loss, and the table row it makes; with `file`, one trained elsewhere.

    `latent_dim`: of its codes, if that is not the budget's. `sha256` is of the file, which may be a folder.
    """

    code: OwnCode
    label: str
    n: str = "gaussian"
    gmm: str = "gmm10"
    family: Family = "own"
    has_posterior: bool = False
    latent_dim: Count | None = None
    file: str | None = None
    sha256: str = ""

    @property
    def offers(self) -> frozenset[Need]:
        """What the model has that a density may need."""
        return frozenset({"a posterior"} if self.has_posterior else ())


@dataclass(frozen=True)
class Vocabulary:
    """Every entry by name, a field for each file; `rows` has those of models, too."""

    datasets: dict[str, DatasetEntry]
    budgets: dict[str, Budget]
    models: dict[str, ModelEntry | OwnModelEntry]
    rows: dict[str, Row]
    densities: dict[str, dict[str, Plain]]
    metrics: dict[str, MetricSettings]
    image_sets: dict[str, ImageSets]
    protocols: dict[str, ProtocolEntry]
    settings: dict[str, Setting]
    points: dict[str, tuple[Weights, str]] = field(default_factory=dict)
    """The points of a study's search by the model's or density's name: their weights, and where they stand."""
    own: dict[str, str] = field(default_factory=dict)
    """Where the study's own entries stand, by where the suite's would."""

    def place(self, section: str, name: str) -> str:
        """Where an entry stands."""
        return _place(self.own, section, name)

    def density_says(self, name: str, claim: str) -> bool:
        """Whether the class of a density claims so; of no kind that there is, nothing is claimed."""
        return getattr(self._density_kind(name), claim, False)

    def density_needs(self, name: str) -> frozenset[Need]:
        """What the class of a density says it is made of beside codes."""
        return getattr(self._density_kind(name), "needs", frozenset())

    def _density_kind(self, name: str) -> Any:
        return kinds(Density).get(str(self.densities[name.split(POINT)[0]].get("kind")))

    def row_place(self, name: str) -> str:
        """Where a row is stated."""
        return self.place("models" if name in self.models else "rows", name)

    def objective(self, name: str, like: str, of: DatasetEntry) -> Objective:
        """The objective of a model, or of a point of its search, with the weights of the data set `like`.

        `of`: the data set that is trained on; its reconstruction term and count of images, where the model states none.
        """
        base = name.split(POINT)[0]
        entry, place = self.models[base], self.place("models", base)
        assert isinstance(entry, ModelEntry)
        stated = replace(entry, reconstruction=entry.reconstruction or of.reconstruction)
        return _joined(stated, place, *self._weights(name, entry.weights, place, like), of.data.n_train)

    def density(self, name: str, like: str) -> Density:
        """A density as stated; one that has an objective takes its weights as a model does."""
        base = name.split(POINT)[0]
        entry, place = dict(self.densities[base]), self.place("densities", base)
        if "objective" in get_type_hints(self._density_kind(base) or Terms):
            stated = parse(dict[str, Weights], entry.pop("weights", {}), f"{place}.weights")
            if "objective" in entry:
                terms = parse(Terms, entry["objective"], f"{place}.objective")
                weights = self._weights(name, stated, place, like)
                entry["objective"] = to_plain(_joined(terms, f"{place}.objective", *weights))
        spec: Density = parse(Density, entry, place)
        return spec

    def _weights(self, name: str, stated: dict[str, Weights], place: str, like: str) -> tuple[Weights, str]:
        """The weights of a point, or those stated for a data set, and where they stand."""
        return self.points.get(name, (stated.get(like, {}), f"{place}.weights.{like}"))


def read(folder: Path, own: Mapping[str, dict[str, Plain]] | None = None, where: str = "") -> Vocabulary:
    """The vocabulary in `folder`, and beside it a study's `own` entries of each section, which stand at `where`.

    Raises:
        ConfigError: an entry is not what it should be, names something that is not there, or hides one of the
            suite's.
    """
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    for section, kind in get_type_hints(Vocabulary).items():
        if section in ("settings", "points", "own"):
            continue
        kind = dict[str, ModelEntry] if section == "models" else kind
        entries = read_yaml(folder, f"{section}.yaml")
        found[section] = parse(kind, entries, f"{section}.yaml")
        for name, entry in (own or {}).get(section, {}).items():
            if name in entries:
                raise ConfigError(f"{where}.{section}: {name!r} is one of the suite's; give it another name")
            places[f"{section}.yaml.{name}"] = f"{where}.{section}.{name}"
            entries[name] = _extended(entries, entry, f"{where}.{section}.{name}")
            is_model = section == "models" and "code" in entries[name]
            own_kind = dict[str, OwnModelEntry] if is_model else kind
            found[section] |= parse(own_kind, {name: entries[name]}, f"{where}.{section}")
        for name in found[section]:
            at = _place(places, section, name).removesuffix(f".{name}")
            check_name(at, name)
            if POINT in name:
                raise ConfigError(f"{at}: {name!r} holds {POINT!r}, which marks the points of a search")
    models: dict[str, ModelEntry | OwnModelEntry] = found["models"]
    for key, row in found["rows"].items():
        if key in models:
            at = _place(places, "rows", key).removesuffix(f".{key}")
            of = _place(places, "models", key).removesuffix(f".{key}")
            raise ConfigError(f"{at}: {key!r} is a model's row already, {of}'s; give it another name")
        if row.has_no_model:
            if stated := [part for part in ("model", "n", "gmm", "through") if getattr(row, part)]:
                at = f"{_place(places, 'rows', key)}.{stated[0]}"
                raise ConfigError(f"{at}: a row of given images has no model and no densities")
            found["rows"][key] = replace(row, model=key)
    found["rows"] |= {key: Row(entry.label, entry.family, key, entry.n, entry.gmm) for key, entry in models.items()}
    settings = parse_settings(read_yaml(folder, "settings.yaml"), list(models), list(found["rows"]))
    vocabulary = Vocabulary(**found, settings=settings, own=places)
    _check(vocabulary)
    return vocabulary


def _place(own: Mapping[str, str], section: str, name: str) -> str:
    place = f"{section}.yaml.{name}"
    return own.get(place, place)


def _extended(section: Mapping[str, Plain], entry: Plain, where: str) -> Plain:
    """An own entry, laid over the entry that it extends."""
    if not isinstance(entry, Mapping) or "extends" not in entry:
        return entry
    known(f"{where}.extends", "entry", section, str(entry["extends"]))
    return laid(section[entry["extends"]], {key: value for key, value in entry.items() if key != "extends"}, where)


def _check(vocabulary: Vocabulary) -> None:
    """Refuse names of things that do not exist, in entries whether a study uses them or not."""
    for name, dataset in vocabulary.datasets.items():
        known(f"{vocabulary.place('datasets', name)}.weights", "data set", vocabulary.datasets, dataset.weights)
    for name, budget in vocabulary.budgets.items():
        budget.laid_out(1, NETWORK_SIZES[0], budget.latent_dim, vocabulary.place("budgets", name))
    for name, model in vocabulary.models.items():
        if isinstance(model, OwnModelEntry):
            continue
        known(f"{vocabulary.place('models', name)}.weights", "data set", vocabulary.datasets, *model.weights)
        for like in model.weights:
            vocabulary.objective(name, like, vocabulary.datasets[like])
    for name, stated in vocabulary.densities.items():
        place = vocabulary.place("densities", name)
        known(f"{place}.weights", "data set", vocabulary.datasets, *stated.get("weights", {}))
        for like in stated.get("weights", {}):
            vocabulary.density(name, like)
    for name, entry in vocabulary.protocols.items():
        known(f"protocols.yaml.{name}.settings", "setting", vocabulary.settings, *entry.settings)
    for name, changed in vocabulary.settings.items():
        for i, patch in enumerate(changed.patches):
            named = patch.set if patch.target == "densities" else ()
            known(f"settings.yaml.{name}.patches[{i}].set", "density", vocabulary.densities, *named)


def _joined(terms: Terms, where: str, weights: Weights, weights_where: str, images: int | None = None) -> Objective:
    """Return `terms` with their weights; exactly those that have one must be named.

    `images`: how many are trained on, for a term that asks and does not say.
    """
    parts = {
        "posterior": to_plain(terms.posterior),
        "latent": dict(terms.latent),
        "regulariser": dict(terms.regulariser),
        "reconstruction": to_plain(terms.reconstruction or SQUARED_ERROR),
    }
    weighted = []
    for term, union in (("latent", Latent), ("regulariser", Regulariser)):
        kind = kinds(union).get(str(parts[term].get("kind")))
        if "weight" in parts[term]:
            raise ConfigError(f"{where}.{term}.weight: weights stand by themselves, per data set, under `weights`")
        if kind is None:
            parse(union, parts[term], f"{where}.{term}")
        elif "weight" in get_type_hints(kind):
            weighted.append(term)
            if term not in weights:
                raise ConfigError(f"{weights_where}: missing the weight of its term {term!r}")
            parts[term]["weight"] = weights[term]
        if kind is not None and "images" in get_type_hints(kind) and images is not None:
            parts[term].setdefault("images", images)
    for term in weights:
        known(f"{weights_where}.{term}", "term with a weight", weighted, term)
    objective: Objective = parse(Objective, parts, where)
    return objective


def known(where: str, noun: str, there: Collection[str], *names: str) -> None:
    """Raise ConfigError if one of `names` is not `there`, with the nearest that is."""
    for name in names:
        if name not in there:
            raise ConfigError(unknown(where, noun, name, list(there)))


def check_name(where: str, name: str) -> None:
    """Refuse a name that cannot stand in a path: shown in ASCII, so that a letter that only looks like one is seen."""
    if not _NAME.fullmatch(name):
        found = ascii(name if len(name) <= 60 else f"{name[:60]}...")
        raise ConfigError(
            f"{where}: {found} is not a name: at most 40 lower-case letters a to z, digits and _, a letter first"
        )
    if _TAKEN.fullmatch(name):
        raise ConfigError(f"{where}: {name!r} cannot name results: a folder or a device is called so; rename it")
