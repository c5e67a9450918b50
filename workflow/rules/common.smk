# What several rules share.

# The images of a prepared data set, with the list of all its files.
IMAGES = {
    "manifest": FILES.manifest("{dataset}"),
    "images": FILES.data("{dataset}") / "images.npy",
}


def every_run(file, of=study.scored):
    """The paths of `file`, a pattern, in all runs of the study, or in those of some of its models."""
    return expand(
        file,
        study=study.name,
        dataset=study.datasets,
        model=of,
        seed=study.train_seeds,
    )


def once(find):
    """`find`, a function of wildcards, which all seeds of a model share: asked once for all, as often as it is needed."""
    found = {}

    def known(wc):
        key = tuple(value for name, value in wc.items() if name != "seed")
        if key not in found:
            found[key] = find(wc)
        return found[key]

    return known


def reference(spec):
    """The path of a set of real features: shared by all studies that ask for exactly the same."""
    return once(lambda wc: FILES.reference(wc.dataset, spec(wc.dataset).name))


def densities(names):
    """The paths of those densities of a run that `names` gives for its model."""
    return lambda wc: [str(RUN.density(name)).format(**wc) for name in names(wc.model)]


def beside(name):
    """The folder of the input `name`, in which a stage finds or puts its other files, too."""
    return lambda wc, input: os.path.dirname(input[name])


# The most minutes a job may ask for, where a profile says so: default-resources: {max_runtime: 1440}.
DEFAULTS = workflow.resource_settings.default_resources or {}
MOST = DEFAULTS["max_runtime"].raw if "max_runtime" in DEFAULTS else None
if MOST is not None and not str(MOST).isdecimal():
    sys.exit(
        f"rae_bench: default-resources: max_runtime: {MOST!r}: expected minutes, as 1440"
    )


def asked(needed):
    """What a job asks of a scheduler by its wildcards, more at each attempt; `needed`: of rae_bench/study/resources.py."""
    most, needed = None if MOST is None else int(MOST), once(needed)
    return {
        "mem_mb": lambda wc, attempt: needed(wc).mem_mb(attempt),
        "runtime": lambda wc, attempt: needed(wc).minutes(attempt, most),
    }


def tried(part):
    """The tryout of a part of a user's own: of that name, or what `part` gives for the wildcards, if there is one."""

    def paths(wc):
        name = part if isinstance(part, str) else part(wc)
        if name not in study.tryouts(wc.dataset):
            return []
        return str(FILES.tryout(wc.dataset, name)).format(study=wc.study)

    return paths


def captioned(file, caption, category):
    """Files for `snakemake --report`, with their caption."""
    return report(file, caption=f"../report/{caption}.rst", category=category)


def of_each(datasets, file):
    """The paths of `file`, a pattern, for each of the data sets; the study stays open."""
    return expand(file, dataset=datasets, allow_missing=True)
