# Images and what they are measured against.


rule prepare:
    output:
        manifest=FILES.manifest("{dataset}"),
        images=FILES.data("{dataset}") / "images.npy",
    log:
        FILES.data("{dataset}") / "prepare.log",
    conda:
        "../../environment.yml"
    resources:
        **asked(lambda wc: need.prepare(study, wc.dataset)),
    params:
        spec=once(lambda wc: to_json(study.preparation(wc.dataset))),
        data=lambda wc, output: os.path.dirname(output.manifest),
    shell:
        "python -m rae_bench prepare --spec {params.spec:q} --data {params.data:q} >> {log:q} 2>&1"


rule reference:
    input:
        **IMAGES,
    output:
        reference=FILES.reference("{dataset}", "{reference}"),
    log:
        FILES.reference("{dataset}", "{reference}").with_suffix(".log"),
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.reference(study, wc.dataset, wc.reference)),
        gpu=study.gpus,
    params:
        spec=once(lambda wc: to_json(study.references(wc.dataset)[wc.reference])),
        data=beside("manifest"),
    shell:
        "python -m rae_bench reference --spec {params.spec:q} --data {params.data:q} --out {output.reference:q}"
        " >> {log:q} 2>&1"


rule floor:
    input:
        **IMAGES,
        reference=reference(study.reference),
        other=reference(study.floor_reference),
        training=reference(study.training_reference),
    output:
        floor=FILES.floor("{dataset}"),
    log:
        LOGS / "floor" / "{dataset}.log",
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.floor(study, wc.dataset)),
    params:
        spec=once(lambda wc: to_json(study.floor(wc.dataset))),
        data=beside("manifest"),
    shell:
        "python -m rae_bench floor --spec {params.spec:q} --data {params.data:q} --reference {input.reference:q}"
        " --other {input.other:q} --training {input.training:q} --out {output.floor:q} >> {log:q} 2>&1"
