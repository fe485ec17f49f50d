"""An environment in which MLflow sends nothing, asks nothing and says nothing; import it before MLflow."""

import logging
import os
import warnings

for name in [name for name in os.environ if name.startswith(("MLFLOW_", "DATABRICKS_", "_MLFLOW"))]:
    del os.environ[name]
os.environ.update(
    MLFLOW_ALLOW_FILE_STORE="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    MLFLOW_ENABLE_ASYNC_LOGGING="false",
    GIT_PYTHON_REFRESH="quiet",
)

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

import mlflow  # noqa: E402

VERSION = tuple(int(part) for part in mlflow.__version__.split(".")[:2])
