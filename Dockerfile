# nnU-Net with the trainers of this package. Not built so far.
#
#   docker build -t attenscribble .
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/data" attenscribble nnUNetv2_train 501 2d 0 -tr nnUNetTrainerAttenScribble
#
# /data holds nnU-Net's three folders; files belong to you with --user "$(id -u):$(id -g)".
# The default base is for processors and GPUs alike, as PyTorch's wheels for Linux bring CUDA. Other choices:
#   --build-arg BASE=pytorch/pytorch:2.8.0-cuda12.8-cudnn9-runtime    CUDA and PyTorch of the base
#   --build-arg PIP_EXTRA_INDEX_URL=...                               an index of PyTorch's wheels for processors, which are small
#   --build-arg VERSION="$(python -m setuptools_scm)"                 the version, which git knows and the image does not
ARG BASE=python:3.12-slim
FROM ${BASE}

# Triton compiles the stubs of its kernels with it, torch.compile all of its code.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

ARG PIP_EXTRA_INDEX_URL VERSION=0.1.dev0
COPY . /src
RUN SETUPTOOLS_SCM_PRETEND_VERSION_FOR_NNUNET_ATTENSCRIBBLE=${VERSION} pip install --no-cache-dir /src \
    && rm -rf /src \
    # Where nnU-Net looks for trainers depends on the base's Python; the link does not.
    && ln -s "$(attenscribble trainers)" /trainers

# HOME and USER: caches of kernels have to go somewhere, whoever the container runs as.
ENV nnUNet_raw=/data/nnUNet_raw \
    nnUNet_preprocessed=/data/nnUNet_preprocessed \
    nnUNet_results=/data/nnUNet_results \
    nnUNet_extTrainer=/trainers \
    HOME=/tmp \
    USER=nnunet
WORKDIR /data
CMD ["attenscribble", "doctor"]
