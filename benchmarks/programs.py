"""What one would write instead of `resnet-cli profile resnet50`, tool by tool, and the least such a program costs."""

from __future__ import annotations

BARE = """
import typer
from rich.console import Console
from rich.table import Table

def show(net: str) -> None:
    table = Table("row", "output", "params", "MACs", title=net)
    for row in range(8):
        table.add_row(f"conv{row}", "64 x 112 x 112", "9,408", "118.0M")
    Console().print(table)

typer.run(show)
"""

_NET = """
import sys, types
sys.modules["torchvision._meta_registrations"] = types.ModuleType("")  # for a torchvision of another build than torch
import torch
from torchvision.models import resnet50
net, x = resnet50().eval(), torch.zeros(1, 3, 224, 224)
"""

TOOLS = {
    "fvcore": """
from fvcore.nn import FlopCountAnalysis, flop_count_table
print(flop_count_table(FlopCountAnalysis(net, x), max_depth=2))
""",
    "thop": """
from thop import clever_format, profile
print(*clever_format(profile(net, inputs=(x,), verbose=False)))
""",
    "torchinfo": """
from torchinfo import summary
summary(net, input_data=x, verbose=1)
""",
    "FlopCounterMode": """
from torch.utils.flop_counter import FlopCounterMode
with FlopCounterMode(depth=2), torch.no_grad():
    net(x)
""",
}

SCRIPTS = {tool: _NET + lines for tool, lines in TOOLS.items()}
"""ResNet-50 of torchvision, counted by each tool and printed as it prints by default."""
