# The evaluation of the configured study, from images to tables: read on in workflow/rules/, in the order below.
#
#   snakemake --cores 8                          the default study, digits
#   snakemake --cores 8 --config study=embedded  another one: of those in workflow/config/studies/, or a file anywhere

import logging
import os
import sys
import time
from pathlib import Path

from snakemake.utils import min_version
from snakemake_interface_executor_plugins.settings import DeploymentMethod

from rae_bench.base.cluster import announce
from rae_bench.base.devices import DEVICE
from rae_bench.base.locks import HeldError
from rae_bench.base.plain import ConfigError, to_json
from rae_bench.base.storage import StorageError
from rae_bench.run.checking import lacking
from rae_bench.run.jobs import DRIVER, claim
from rae_bench.run.settling import settle
from rae_bench.study import resources as need
from rae_bench.study.config import load_study
from rae_bench.study.files import StudyFiles

min_version("9.0")
# A full disk loses lines of Snakemake's log, without a traceback for each.
logging.raiseExceptions = False

if set("{}") & set(str(workflow.basedir)):
    sys.exit(
        f"rae_bench: {workflow.basedir}: the path of the checkout holds a brace, which Snakemake takes for a wildcard;"
        " rename the folder or move the checkout"
    )
if not os.access(".", os.W_OK):
    sys.exit(
        f"rae_bench: {os.getcwd()}: cannot be written, and results/ goes there; allow writing there"
    )
if set(config) - {"study"}:
    sys.exit(
        f"rae_bench: --config takes one key, study; found {sorted(set(config) - {'study'})}"
    )
try:
    study = load_study(config.get("study", "digits"))
except ConfigError as error:
    sys.exit(f"rae_bench: {error}")


wildcard_constraints:
    study=study.name,
    dataset="|".join(study.datasets),
    model="|".join(study.scored),
    density="|".join(study.densities),
    seed="|".join(map(str, study.train_seeds)),
    reference=r"[\w.]+",
    part=r"[\w.]+",


# Where everything lies: the rules' patterns of paths, their wildcards in braces.
FILES = StudyFiles(Path("results"), "{study}")
RUN = FILES.run("{dataset}", "{model}", "{seed}")
LOGS = FILES.root / "logs"
# This file is read again in each cluster job, by a Snakemake of the job's own.
os.environ[DRIVER] = str(os.getpid())  # stages end with the Snakemake that started them
announce(workflow.remote_exec)  # ... and stop before the job's time limit
# Settled here: on a cluster every node would find its own.
os.environ[DEVICE] = study.file.compute.device
# Before anything is planned: Snakemake goes by files' times, and these by the files' records.
if workflow.is_main_process:
    try:
        settle(study, FILES.results)
    except StorageError as error:
        sys.exit(f"rae_bench: {error}")
    if lacks := lacking(study, FILES.results):
        print(f"rae_bench: {lacks}", file=sys.stderr)
# `python` in a rule is the one that runs Snakemake, its environment activated or not. With --sdm conda it is that of the
# rule's own environment, which activation may put behind what stands first in the path here.
if DeploymentMethod.CONDA not in workflow.deployment_settings.deployment_method:
    os.environ.update(
        PATH=os.pathsep.join([os.path.dirname(sys.executable), *os.get_exec_path()])
    )
started = time.time()
held = []  # the lock on results/, from the first job to the end


onstart:
    try:
        held.append(claim(FILES.results))
    except (HeldError, StorageError) as error:
        print(f"rae_bench: {error}", file=sys.stderr)
        os._exit(1)
    # Some processors are slower in bfloat16. A cluster's nodes are others than this machine.
    if study.file.compute.precision == "bfloat16" and workflow.local_exec:
        shell(
            "{sys.executable:q} -m rae_bench cost {study.source:q} --precisions || true"
        )


# On a cluster no cores of this machine are given, and no share of them is told.
onsuccess:
    cores = workflow.resource_settings.cores or 0
    shell(
        "{sys.executable:q} -m rae_bench spent {study.source:q} --cores {cores} --since {started}"
    )


onerror:
    shell("{sys.executable:q} -m rae_bench status {study.source:q}")


rule all:
    default_target: True
    input:
        expand(
            [FILES.metrics, FILES.tables, FILES.figures, FILES.report],
            study=study.name,
        ),


# The opening of `snakemake --report`.
report: "workflow/report/study.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
