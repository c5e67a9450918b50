# From every run's metrics to what people look at.


localrules:
    collect,
    tables,
    figures,
    report,


# What `collect` gathers: every run's metrics, and every run's panel of protocols where the study has one.
COLLECTED = {"metrics": FILES.metrics}
if study.file.protocols:
    COLLECTED["panel"] = FILES.panel
# These stages take the settings of the whole study. A function as everywhere: in a text Snakemake would fill in the
# {braces} of a title.
SUMMARY = {
    "spec": lambda wc: to_json(study.summary()),
    "results": lambda wc: str(FILES.results),
}


rule collect:
    input:
        runs=every_run(RUN.metrics),
        panels=every_run(RUN.panel, study.competing) if study.file.protocols else [],
    output:
        **COLLECTED,
    log:
        LOGS / "collect.log",
    conda:
        "../../environment.yml"
    params:
        **SUMMARY,
    shell:
        "python -m rae_bench collect --spec {params.spec:q} --results {params.results:q} >> {log:q} 2>&1"


rule tables:
    input:
        **COLLECTED,
    output:
        index=FILES.tables,
    log:
        LOGS / "tables.log",
    conda:
        "../../environment.yml"
    params:
        **SUMMARY,
    shell:
        "python -m rae_bench tables --spec {params.spec:q} --results {params.results:q} >> {log:q} 2>&1"


rule figures:
    input:
        **COLLECTED,
        sheets=every_run(RUN.sheets),
        histories=every_run(RUN.history, study.models),
    output:
        index=FILES.figures,
    log:
        LOGS / "figures.log",
    conda:
        "../../environment.yml"
    params:
        **SUMMARY,
    shell:
        "python -m rae_bench figures --spec {params.spec:q} --results {params.results:q} >> {log:q} 2>&1"


rule report:
    input:
        metrics=FILES.metrics,
        tables=FILES.tables,
        figures=FILES.figures,
    output:
        report=FILES.report,
    log:
        LOGS / "report.log",
    conda:
        "../../environment.yml"
    params:
        **SUMMARY,
    shell:
        "python -m rae_bench report --spec {params.spec:q} --results {params.results:q} >> {log:q} 2>&1"
