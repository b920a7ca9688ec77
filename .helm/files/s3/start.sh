#!/bin/sh
# Start whichever S3 server the image holds, so that S3_IMAGE alone chooses it: Silo and MinIO, or the Versity gateway.
set -eu
# Servers look for certificates below it, and the image's own may be closed to whoever runs this.
export HOME=/tmp

for server in silo minio; do
  if command -v "$server" >/dev/null 2>&1; then
    export MINIO_ROOT_USER="$AWS_ACCESS_KEY_ID" MINIO_ROOT_PASSWORD="$AWS_SECRET_ACCESS_KEY"
    export MINIO_UPDATE=off MINIO_CALLHOME_ENABLE=off
    exec "$server" server /data --address :9000 --console-address :9001
  fi
done

gateway=$(command -v versitygw || echo /app/versitygw)
if [ -x "$gateway" ]; then
  export ROOT_ACCESS_KEY="$AWS_ACCESS_KEY_ID" ROOT_SECRET_KEY="$AWS_SECRET_ACCESS_KEY"
  # Beside the buckets' folder, not inside it, where it would look like a bucket.
  mkdir -p /data/objects /data/metadata
  exec "$gateway" --port :9000 --quiet posix --sidecar /data/metadata /data/objects
fi

echo "this image holds none of silo, minio, versitygw" >&2
exit 1
