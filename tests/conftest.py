"""What every test may rely on."""

from __future__ import annotations

import sys
import types

# Torchvision registers its compiled operations with torch there, and fails where those are of another build than torch.
# No model needs them.
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))
