"""Answers REST requests as MLflow's own server does: one JSON object per line in, one per line out.

    python answer_requests.py DIRECTORY

In: {"method", "path", "body"}, the body being text or null. Out: {"status", "body"}. The server is MLflow's Flask
application over a new SQLite database in DIRECTORY, with proxied artifacts, called without a socket. The first line out
names the version.
"""

import json
import logging
import os
import sys

root = sys.argv[1]
os.environ.update({
    "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{root}/mlflow.db",
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION": f"{root}/artifacts",
    "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
})
# What MLflow prints itself must not get among the answers.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import mlflow  # noqa: E402
from mlflow.server import app  # noqa: E402

logging.disable(logging.CRITICAL)
client = app.test_client()
print(json.dumps({"mlflow": mlflow.__version__}), file=answers)

for line in sys.stdin:
    asked = json.loads(line)
    options = {} if asked["method"] == "GET" else {"content_type": "application/json"}
    if asked["body"] is not None:
        options["data"] = asked["body"].encode()
    try:
        given = client.open(asked["path"], method=asked["method"], **options)
        answer = {"status": given.status_code, "body": given.get_data(as_text=True)}
    except Exception as error:
        answer = {"status": 500, "body": repr(error)}
    print(json.dumps(answer), file=answers)
