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


def reference(spec):
    """The path of a set of real features: shared by all studies that ask for exactly the same."""
    return (
        lambda wc: f"results/references/{wc.dataset}/{spec(wc.dataset).name}.safetensors"
    )


def growing(amount):
    """A resource that grows with each attempt: what failed for want of it has more the next time."""
    return lambda wc, attempt: amount * attempt
