# The course in JupyterLab:
#
#   docker build --tag ssnet-tutorial .
#   docker run --rm --publish 8888:8888 ssnet-tutorial
#
# The same for an NVIDIA card. `--shm-size` is what loader processes pass pictures through:
#
#   docker build --tag ssnet-tutorial-cuda --build-arg TORCH=cuda .
#   docker run --rm --gpus all --shm-size 4g --publish 8888:8888 ssnet-tutorial-cuda
FROM python:3.12-slim-bookworm AS tools

# What a Python needs to compile pydensecrf2. Not pinned: within a release of Debian only
# mended versions follow, and the old ones leave the archive.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 learner \
    && install --directory --owner learner --group learner /course
USER 1000:1000
WORKDIR /course
ENV PYTHONUTF8=1

FROM tools

# `cpu`, `cuda` (the build that requirements.txt pins) or one that uv knows, such as cu132.
ARG TORCH=cpu
COPY --chown=learner:learner . .
RUN UV_NO_CACHE=1 UV_TORCH_BACKEND="${TORCH#cuda}" python -m tools.make install \
    && .venv/bin/jsws data make-mini
ENV PATH=/course/.venv/bin:$PATH
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--ServerApp.root_dir=.", \
     "--LabApp.default_url=/lab/tree/notebooks"]
