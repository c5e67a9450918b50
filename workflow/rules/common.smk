# What several rules share.


def every_run(file):
    """The paths of `file` in all runs of the study."""
    return expand(
        f"{RUN}/{file}",
        study=study.name,
        dataset=study.datasets,
        model=study.models,
        seed=study.train_seeds,
    )
