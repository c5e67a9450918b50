# One process for all image sets of a run: decode -> uint8 -> features -> every metric, in memory.


rule evaluate:
    input:
        manifest="results/datasets/{dataset}/manifest.json",
        images="results/datasets/{dataset}/images.npy",
        reference=reference(study.reference),
        prd_reference=reference(study.prd_reference),
        training=reference(study.training_reference),
        floor="results/{study}/{dataset}/floor.json",
        model=f"{RUN}/model.safetensors",
        densities=lambda wc: expand(
            f"{RUN}/densities/{{density}}.safetensors",
            density=study.densities_of(wc.model),
            **wc,
        ),
    output:
        metrics=f"{RUN}/metrics.parquet",
        sheets=f"{RUN}/sheets.safetensors",
    log:
        "results/{study}/logs/evaluate/{dataset}.{model}.seed{seed}.log",
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.evaluate(study, wc.dataset, wc.model)),
        gpu=study.gpus,
    params:
        spec=lambda wc: to_json(study.evaluation(wc.dataset, wc.model)),
        densities=f"{RUN}/densities",
    shell:
        "python -m rae_bench evaluate --spec {params.spec:q} --seed {wildcards.seed:q} --study {wildcards.study:q}"
        " --dataset {wildcards.dataset:q} --model-name {wildcards.model:q} --manifest {input.manifest:q}"
        " --reference {input.reference:q} --prd-reference {input.prd_reference:q}"
        " --training {input.training:q} --floor {input.floor:q}"
        " --model {input.model:q} --densities {params.densities:q} --metrics {output.metrics:q} --sheets {output.sheets:q} >> {log:q} 2>&1"


# The protocol-sensitivity panel: the same samples, scored in other ways.


rule protocols:
    input:
        references=lambda wc: [
            f"results/references/{wc.dataset}/{spec.name}.safetensors"
            for spec in study.protocol_references(wc.dataset).values()
        ],
        model=f"{RUN}/model.safetensors",
        densities=lambda wc: expand(
            f"{RUN}/densities/{{density}}.safetensors",
            density=study.shown_densities(wc.model),
            **wc,
        ),
    output:
        panel=f"{RUN}/protocols.parquet",
    log:
        "results/{study}/logs/protocols/{dataset}.{model}.seed{seed}.log",
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.protocols(study, wc.dataset, wc.model)),
        gpu=study.gpus,
    params:
        spec=lambda wc: to_json(study.protocol_panel(wc.dataset, wc.model)),
        densities=f"{RUN}/densities",
    shell:
        "python -m rae_bench protocols --spec {params.spec:q} --seed {wildcards.seed:q} --dataset {wildcards.dataset:q}"
        " --model-name {wildcards.model:q} --model {input.model:q} --densities {params.densities:q}"
        " --references results/references/{wildcards.dataset:q} --panel {output.panel:q} >> {log:q} 2>&1"
