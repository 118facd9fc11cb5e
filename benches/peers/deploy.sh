#!/bin/sh
# The shell script that many deploy with: deploy.sh DOCKER REPOSITORY FOLDER NAME NUMBER CONFIGURATION
# Clones, builds, runs, and points nginx at the new container; the old one is left for the caller to remove.
set -eu
docker=$1 repository=$2 folder=$3 name=$4 number=$5 configuration=$6
git clone --quiet --depth 1 "$repository" "$folder/source-$number"
DOCKER_BUILDKIT=1 "$docker" build --quiet --tag "$name:$number" "$folder/source-$number" >/dev/null
"$docker" run --detach --name "$name-$number" "$name:$number" >/dev/null
address=$("$docker" inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$name-$number")
echo "upstream app { server $address:3000; }" >"$folder/upstream.conf"
nginx -c "$configuration" -s reload
