# Code of a user's own is tried first: by its priority before anything is trained, and what names it waits for it. Then one
# job per (data set, model, seed), whose codes feed every density.


rule tryout:
    input:
        **IMAGES,
    output:
        tryout=FILES.tryout("{dataset}", "{part}"),
    log:
        LOGS / "tryout" / "{dataset}.{part}.log",
    priority: 2
    conda:
        "../../environment.yml"
    threads: study.file.compute.threads
    resources:
        **asked(lambda wc: need.tryout(study, wc.dataset, wc.part)),
        gpu=study.gpus,
    params:
        spec=once(lambda wc: to_json(study.tryouts(wc.dataset)[wc.part])),
        data=beside("manifest"),
    shell:
        "python -m rae_bench tryout --spec {params.spec:q} --data {params.data:q} --out {output.tryout:q} >> {log:q} 2>&1"


rule train:
    input:
        **IMAGES,
        tryout=tried(lambda wc: f"model.{wc.model}"),
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
        spec=once(lambda wc: to_json(study.training(wc.dataset, wc.model))),
        data=beside("manifest"),
        run=lambda wc, output: os.path.dirname(output.model),
    shell:
        "python -m rae_bench train --spec {params.spec:q} --data {params.data:q} --run {params.run:q} >> {log:q} 2>&1"


rule fit:
    input:
        codes=RUN.codes,
        tryout=tried(lambda wc: study.density_part(wc.dataset, wc.model, wc.density)),
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
        spec=once(lambda wc: to_json(study.fit(wc.dataset, wc.model, wc.density))),
        run=beside("codes"),
    shell:
        "python -m rae_bench fit --spec {params.spec:q} --run {params.run:q} --density {wildcards.density:q}"
        " >> {log:q} 2>&1"
