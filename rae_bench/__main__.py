"""`python -m rae_bench COMMAND`: the stages and the commands for people."""

import logging
import os
import sys

from rae_bench.cli import main

if __name__ == "__main__":
    main()
    # All files are written. Taking an interpreter with torch down by the book costs another core second a job.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
