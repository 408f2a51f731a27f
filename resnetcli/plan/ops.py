from resnetcli.ops import *  # noqa: F403
