"""`python -m rae_bench <stage>`."""

from rae_bench.cli import main

if __name__ == "__main__":
    main()
