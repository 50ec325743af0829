"""Names of files that one command writes and another command reads, in run directories and data sets.

Decides: names alone. Never: what the files hold.
"""

CHECKPOINTS_NAME = "checkpoints"  # folder of a run
CONFIG_NAME = "config.json"
EVENTS_NAME = "events"  # folder of a run, for TensorBoard
LOCK_NAME = ".lock"  # of a run
MANIFEST_NAME = "manifest.json"  # of a run, and of a checkpoint
METRICS_NAME = "metrics.jsonl"
MODEL_NAME = "model.keras"
REPORT_NAME = "report.html"
STATUS_NAME = "status.json"
SUMMARY_NAME = "summary.json"
VECTORIZER_NAME = "vectorizer"  # folder of a data set, copied into its runs
