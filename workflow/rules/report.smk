# From every run's metrics to what people look at.


localrules:
    collect,
    tables,
    figures,
    report,


# What `collect` gathers: every run's metrics, and every run's panel of protocols where the study has one.
COLLECTED = {"metrics": "results/{study}/metrics.parquet"}
if study.file.protocols:
    COLLECTED["panel"] = "results/{study}/protocols.parquet"


rule collect:
    input:
        runs=every_run("metrics.parquet"),
        panels=every_run("protocols.parquet") if study.file.protocols else [],
    output:
        **COLLECTED,
    log:
        "results/{study}/logs/collect.log",
    conda:
        "../../environment.yml"
    params:
        # a function as everywhere: in a text Snakemake would fill in the {braces} of a title
        spec=lambda wc: to_json(study.summary()),
        panel=lambda wc, input: ["--panels", *input.panels] if input.panels else [],
    shell:
        "python -m rae_bench collect --spec {params.spec:q} --runs {input.runs:q} {params.panel:q}"
        " --metrics {output.metrics:q} >> {log:q} 2>&1"


rule tables:
    input:
        **COLLECTED,
    output:
        index="results/{study}/tables/index.json",
    log:
        "results/{study}/logs/tables.log",
    conda:
        "../../environment.yml"
    params:
        spec=lambda wc: to_json(study.summary()),
    shell:
        "python -m rae_bench tables --spec {params.spec:q} --metrics {input.metrics:q} --out {output.index:q}"
        " >> {log:q} 2>&1"


rule figures:
    input:
        **COLLECTED,
        sheets=every_run("sheets.safetensors"),
        histories=every_run("history.parquet"),
    output:
        index="results/{study}/figures/index.json",
    log:
        "results/{study}/logs/figures.log",
    conda:
        "../../environment.yml"
    params:
        spec=lambda wc: to_json(study.summary()),
    shell:
        "python -m rae_bench figures --spec {params.spec:q} --metrics {input.metrics:q} --out {output.index:q} >> {log:q} 2>&1"


rule report:
    input:
        metrics="results/{study}/metrics.parquet",
        tables="results/{study}/tables/index.json",
        figures="results/{study}/figures/index.json",
    output:
        report="results/{study}/report.html",
    log:
        "results/{study}/logs/report.log",
    conda:
        "../../environment.yml"
    params:
        spec=lambda wc: to_json(study.summary()),
    shell:
        "python -m rae_bench report --spec {params.spec:q} --metrics {input.metrics:q} --out {output.report:q} >> {log:q} 2>&1"
