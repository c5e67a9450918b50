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
# What `snakemake --report` shows of each data set, where the study makes it: a search draws no figures.
TABLED = study.datasets if "table1" in study.file.tables else []
DRAWN = [] if "search" in study.file.tables else study.datasets


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
        table1=captioned(
            of_each(TABLED, FILES.tables.with_name("table1_{dataset}.csv")),
            "table1",
            "Tables",
        ),
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
        samples=captioned(
            of_each(DRAWN, FILES.figures.with_name("samples_{dataset}.png")),
            "samples",
            "Figures",
        ),
        distances=captioned(
            of_each(DRAWN, FILES.figures.with_name("distances_{dataset}.png")),
            "distances",
            "Figures",
        ),
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
        sheets=every_run(RUN.sheets),
    output:
        report=captioned(FILES.report, "report", "Report"),
    log:
        LOGS / "report.log",
    conda:
        "../../environment.yml"
    params:
        **SUMMARY,
    shell:
        "python -m rae_bench report --spec {params.spec:q} --results {params.results:q} >> {log:q} 2>&1"
