# One job per (data set, model, seed); its codes feed every density.


rule train:
    input:
        **IMAGES,
    output:
        model=RUN.model,
        codes=RUN.codes,
        history=RUN.history,
    log:
        LOGS / "train" / "{dataset}.{model}.seed{seed}.log",
    priority: 1  # the long jobs first
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.train(study, wc.dataset, wc.model)),
        gpu=study.gpus,
    params:
        spec=lambda wc: to_json(study.training(wc.dataset, wc.model)),
        data=beside("manifest"),
        run=lambda wc, output: os.path.dirname(output.model),
    shell:
        "python -m rae_bench train --spec {params.spec:q} --data {params.data:q} --run {params.run:q} >> {log:q} 2>&1"


rule fit:
    input:
        codes=RUN.codes,
    output:
        density=RUN.density("{density}"),
    log:
        LOGS / "fit" / "{dataset}.{model}.seed{seed}.{density}.log",
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.fit(study, wc.dataset, wc.model, wc.density)),
    params:
        spec=lambda wc: to_json(study.fit(wc.dataset, wc.model, wc.density)),
        run=beside("codes"),
    shell:
        "python -m rae_bench fit --spec {params.spec:q} --run {params.run:q} --density {wildcards.density:q}"
        " >> {log:q} 2>&1"
