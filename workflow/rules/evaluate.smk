# One process for all image sets of a run: decode -> uint8 -> features -> every metric, in memory. Where that takes a GPU, two
# of them: networks, with it, and metrics, without; what the first hands on is removed once it is measured.


rule decode:
    input:
        **IMAGES,
        reference=reference(study.reference),
        model=lambda wc: str(RUN.model).format(**wc) if wc.model in study.models else [],
        densities=densities(study.densities_of),
        tryouts=lambda wc: [
            tried(f"measure.{name}")(wc) for name in study.file.measures
        ],
    output:
        decoded=temp(RUN.decoded),
    log:
        LOGS / "decode" / "{dataset}.{model}.seed{seed}.log",
    priority: 2  # minutes of the GPU, then hours beside the next trainings
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.decode(study, wc.dataset, wc.model)),
        gpu=study.gpus,
    params:
        spec=once(lambda wc: to_json(study.evaluation(wc.dataset, wc.model))),
        data=beside("manifest"),
        run=lambda wc, output: os.path.dirname(output.decoded),
    shell:
        "python -m rae_bench decode --spec {params.spec:q} --data {params.data:q} --reference {input.reference:q}"
        " --run {params.run:q} >> {log:q} 2>&1"


rule evaluate:
    input:
        **IMAGES,
        reference=reference(study.reference),
        prd_reference=reference(study.prd_reference),
        training=reference(study.training_reference),
        floor=FILES.floor("{dataset}"),
        model=lambda wc: str(RUN.model).format(**wc) if wc.model in study.models else [],
        densities=densities(study.densities_of),
        tryouts=lambda wc: [
            tried(f"measure.{name}")(wc) for name in study.file.measures
        ],
        decoded=RUN.decoded if study.decodes_apart else [],
    output:
        metrics=RUN.metrics,
        sheets=RUN.sheets,
    log:
        LOGS / "evaluate" / "{dataset}.{model}.seed{seed}.log",
    priority: 3 if study.decodes_apart else 0  # what waits for it fills the disk
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.evaluate(study, wc.dataset, wc.model)),
    params:
        spec=once(lambda wc: to_json(study.evaluation(wc.dataset, wc.model))),
        data=beside("manifest"),
        run=lambda wc, output: os.path.dirname(output.metrics),
    shell:
        "python -m rae_bench evaluate --spec {params.spec:q} --data {params.data:q} --reference {input.reference:q}"
        " --prd-reference {input.prd_reference:q} --training {input.training:q} --run {params.run:q}"
        + (" --decoded {input.decoded:q}" if study.decodes_apart else "")
        + " >> {log:q} 2>&1"


# The protocol-sensitivity panel: the same samples, scored in other ways.


rule protocols:
    input:
        references=lambda wc: [
            FILES.reference(wc.dataset, spec.name)
            for spec in study.protocol_references(wc.dataset).values()
        ],
        model=RUN.model,
        densities=densities(study.shown_densities),
    output:
        panel=RUN.panel,
    log:
        LOGS / "protocols" / "{dataset}.{model}.seed{seed}.log",
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.protocols(study, wc.dataset, wc.model)),
        gpu=study.gpus,
    params:
        spec=once(lambda wc: to_json(study.protocol_panel(wc.dataset, wc.model))),
        run=beside("model"),
    shell:
        "python -m rae_bench protocols --spec {params.spec:q} --run {params.run:q} >> {log:q} 2>&1"
