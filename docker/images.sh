#!/usr/bin/env bash
# Builds the project's images, with docker, podman or buildah, and pushes them. `make images` calls it; its variables:
#
#   REGISTRY   registry, with an optional path, such as registry.example.com/team; empty = the images stay here
#   PUSH       1 = push them
#   IMAGES     which ones: operator worker worker-cpu
#   ENGINE     docker, podman or buildah; empty = the first of them that works here
#   TAG        their tag; empty = the version of the project, which the chart expects
#   BASE_IMAGE, CUDA_BASE_IMAGE, CUDA_BUILD_IMAGE
#              images to start from: those with Python, and the two of NVIDIA of which only the worker is made; empty =
#              those that the Dockerfiles name
#   EXTENSIONS compiled = the worker with transformer-engine and apex, which some options of experiments ask for; it
#              takes NVIDIA's compiler and most of an hour
#   CA_BUNDLE, UV_CONFIG
#              files for builds behind a proxy or a mirror: certificates, and the configuration of uv
#   BUILD_OPTIONS, PUSH_OPTIONS
#              further options of the engine, such as --network=host or --tls-verify=false
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'images: %s\n' "$1" >&2; exit 2; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
tag=${TAG:-$version}
registry=${REGISTRY:-}
registry=${registry%/}
images=${IMAGES:-operator worker worker-cpu}
case $registry in *://*) fail "REGISTRY=$registry: give it without a scheme, such as registry.example.com/team" ;; esac
[ "${PUSH:-}" != 1 ] || [ -n "$registry" ] || fail "PUSH=1 needs a registry: REGISTRY=registry.example.com/team"
case ${EXTENSIONS:-} in
  "") cuda=cuda ;;
  compiled) cuda=cuda-compiled ;;
  *) fail "EXTENSIONS=$EXTENSIONS: give compiled, or nothing" ;;
esac
for image in $images; do
  case $image in operator | worker | worker-cpu) ;; *) fail "IMAGES: no image $image; there are operator, worker, worker-cpu" ;; esac
done

works() {  # a docker without its daemon does not work
  case $1 in docker) docker info >/dev/null 2>&1 ;; podman | buildah) "$1" --version >/dev/null 2>&1 ;; *) false ;; esac
}
engine=${ENGINE:-}
if [ -n "$engine" ]; then
  works "$engine" || fail "ENGINE=$engine does not work here; there are docker (with its daemon), podman and buildah"
else
  for engine in docker podman buildah none; do works "$engine" && break; done
  [ "$engine" != none ] || fail "neither docker (with its daemon) nor podman nor buildah works here; install one of them"
fi

read -ra build_options <<<"${BUILD_OPTIONS:-}"
read -ra push_options <<<"${PUSH_OPTIONS:-}"
for secret in "ca-bundle=${CA_BUNDLE:-}" "uv-config=${UV_CONFIG:-}"; do
  [ -z "${secret#*=}" ] || build_options+=(--secret "id=${secret%%=*},src=${secret#*=}")
done

build() {  # name, Dockerfile, further options
  local name=$1 file=docker/$2.Dockerfile
  shift 2
  local options=(--file "$file" --tag "$name" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "$@" "${build_options[@]}")
  case $engine in
    docker) DOCKER_BUILDKIT=1 docker build "${options[@]}" . ;;  # it finds the .dockerignore beside the file
    podman) podman build --ignorefile "$file.dockerignore" "${options[@]}" . ;;
    buildah) buildah build --layers --ignorefile "$file.dockerignore" "${options[@]}" . ;;
  esac
}
argument() { [ -z "$2" ] || printf '%s\n' --build-arg "$1=$2"; }  # name, value; nothing if the value is empty

for image in $images; do
  name=${registry:+$registry/}cosmos-$image:$tag
  printf 'images: %s is built with %s\n' "$name" "$engine" >&2
  case $image in
    operator)
      mapfile -t options < <(argument BASE_IMAGE "${BASE_IMAGE:-}")
      build "$name" operator "${options[@]}"
      ;;
    worker-cpu)
      build "$name" worker --target cpu --build-arg "BASE_IMAGE=${BASE_IMAGE:-python:3.12-slim}" \
        --build-arg SYSTEM_PACKAGES= --build-arg EXTRAS=worker --build-arg LEFT_OUT=triton
      ;;
    worker)
      mapfile -t options < <(
        argument BASE_IMAGE "${CUDA_BASE_IMAGE:-}"
        argument BUILD_IMAGE "${CUDA_BUILD_IMAGE:-}"
      )
      build "$name" worker --target "$cuda" "${options[@]}"
      ;;
  esac
  if [ "${PUSH:-}" = 1 ]; then
    printf 'images: %s is pushed\n' "$name" >&2
    "$engine" push "${push_options[@]}" "$name"
  fi
done
values=${registry:+ --set global.imageRegistry=$registry}
[ "$tag" = "$version" ] || values+=" --set-string image.operator.tag=$tag,image.worker.tag=$tag,image.workerCpu.tag=$tag"
printf 'images: done; install them with: helm install cosmos charts/cosmos%s\n' "$values" >&2
