# One job per (data set, model, seed); its codes feed every density.


rule train:
    input:
        manifest="results/datasets/{dataset}/manifest.json",
        images="results/datasets/{dataset}/images.npy",
    output:
        model=f"{RUN}/model.safetensors",
        codes=f"{RUN}/codes.safetensors",
        history=f"{RUN}/history.parquet",
    log:
        "results/{study}/logs/train/{dataset}.{model}.seed{seed}.log",
    priority: 1  # the long jobs first
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.train(study, wc.dataset, wc.model)),
        gpu=study.gpus,
    params:
        spec=lambda wc: to_json(study.training(wc.dataset, wc.model)),
    shell:
        "python -m rae_bench train --spec {params.spec:q} --seed {wildcards.seed:q} --manifest {input.manifest:q}"
        " --model {output.model:q} --codes {output.codes:q} --history {output.history:q} >> {log:q} 2>&1"


rule fit:
    input:
        codes=f"{RUN}/codes.safetensors",
    output:
        density=f"{RUN}/densities/{{density}}.safetensors",
    log:
        "results/{study}/logs/fit/{dataset}.{model}.seed{seed}.{density}.log",
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.fit(study, wc.dataset, wc.model, wc.density)),
    params:
        spec=lambda wc: to_json(study.fit(wc.dataset, wc.model, wc.density)),
    shell:
        "python -m rae_bench fit --spec {params.spec:q} --seed {wildcards.seed:q} --codes {input.codes:q}"
        " --density {output.density:q} >> {log:q} 2>&1"
