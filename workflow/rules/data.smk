# Images and what they are measured against.


rule prepare:
    output:
        manifest="results/datasets/{dataset}/manifest.json",
        images="results/datasets/{dataset}/images.npy",
    log:
        "results/datasets/{dataset}/prepare.log",
    conda:
        "../../environment.yml"
    resources:
        **asked(lambda wc: need.prepare(study, wc.dataset)),
    params:
        spec=lambda wc: to_json(study.preparation(wc.dataset)),
    shell:
        "python -m rae_bench prepare --spec {params.spec:q} --manifest {output.manifest:q} >> {log:q} 2>&1"


rule reference:
    input:
        manifest="results/datasets/{dataset}/manifest.json",
        images="results/datasets/{dataset}/images.npy",
    output:
        reference="results/references/{dataset}/{reference}.safetensors",
    log:
        "results/references/{dataset}/{reference}.log",
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.reference(study, wc.dataset, wc.reference)),
        gpu=study.gpus,
    params:
        spec=lambda wc: to_json(study.references(wc.dataset)[wc.reference]),
    shell:
        "python -m rae_bench reference --spec {params.spec:q} --manifest {input.manifest:q}"
        " --reference {output.reference:q} >> {log:q} 2>&1"


rule floor:
    input:
        manifest="results/datasets/{dataset}/manifest.json",
        images="results/datasets/{dataset}/images.npy",
        reference=reference(study.reference),
        other=reference(study.floor_reference),
        training=reference(study.training_reference),
    output:
        floor="results/{study}/{dataset}/floor.json",
    log:
        "results/{study}/logs/floor/{dataset}.log",
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.floor(study, wc.dataset)),
    params:
        spec=lambda wc: to_json(study.floor(wc.dataset)),
    shell:
        "python -m rae_bench floor --spec {params.spec:q} --manifest {input.manifest:q} --reference {input.reference:q}"
        " --other {input.other:q} --training {input.training:q} --floor {output.floor:q} >> {log:q} 2>&1"
