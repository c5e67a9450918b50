# docker build --tag rae_bench .
# docker run --rm --volume "$PWD/results:/rae_bench/results" rae_bench                    the smoke study
# docker run --rm --volume "$PWD/results:/rae_bench/results" rae_bench make results       the digits
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -r /var/lib/apt/lists/*
WORKDIR /rae_bench
COPY . .
RUN make environment
CMD ["make", "results", "STUDY=smoke"]
