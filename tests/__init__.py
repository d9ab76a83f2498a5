"""Tests. Nothing in them leaves the machine: the hub is a closed port unless a test opens one."""

import os

# Read once, when huggingface_hub and transformers are imported; subprocesses inherit them.
os.environ |= {
    "HF_ENDPOINT": "http://127.0.0.1:9",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_OFFLINE": "0",
    "NO_PROXY": "127.0.0.1",
    "TRANSFORMERS_OFFLINE": "0",
    "TRANSFORMERS_VERBOSITY": "error",
}
