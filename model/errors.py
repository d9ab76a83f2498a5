"""Why a model cannot be had.

ConfigError                config.json or preprocessor_config.json asks for something else
CheckpointError            cannot be had, cannot be read, or does not fit its config.json
└── HubUnreachableError    the cache holds no copy, and the hub did not answer or broke off
"""


class ConfigError(ValueError):
    """The configuration describes nothing that this library can build."""


class CheckpointError(Exception):
    """The checkpoint cannot be had, cannot be read, or does not fit its configuration."""


class HubUnreachableError(CheckpointError):
    """The cache holds no copy, and the hub did not answer or broke off."""
