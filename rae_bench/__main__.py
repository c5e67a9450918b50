"""`python -m rae_bench <stage>`."""

import logging
import os
import sys

from rae_bench import fork_client

if __name__ == "__main__":
    fork_client.hand_over(sys.argv[1:])  # before all that takes time to load
    from rae_bench.cli import main

    main()
    # All files are written. Taking an interpreter with torch down by the book costs another core second a job.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
