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


def asked(need):
    """What a job asks of a scheduler by its wildcards, more at each attempt; `need`: of rae_bench/study/resources.py."""
    return {
        "mem_mb": lambda wc, attempt: need(wc).mem_mb(attempt),
        "runtime": lambda wc, attempt: need(wc).minutes(attempt),
    }
