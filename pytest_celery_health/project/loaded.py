"""The modules of this process."""

from __future__ import annotations

import sys
from types import ModuleType


def loaded() -> list[ModuleType]:
    """Those of `sys.modules`, which others put None and objects of their own into, too."""
    return [each for each in list(sys.modules.values()) if isinstance(each, ModuleType)]
