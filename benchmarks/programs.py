"""Scripts that count ResNet-50 with other tools, as alternatives to `resnet-cli profile`, and a bare typer program."""

from __future__ import annotations

BARE = """
import typer
from rich.console import Console
from rich.table import Table

def show(model: str) -> None:
    table = Table("stage", "output", "params", "MACs", title=model)
    for stage in range(8):
        table.add_row(f"conv{stage}", "64 x 112 x 112", "9,408", "118.0M")
    Console().print(table)

typer.run(show)
"""
"""Prints a table of eight rows: the least that such a program costs."""

_MODEL = """
import sys, types
sys.modules["torchvision._meta_registrations"] = types.ModuleType("")  # if built for another PyTorch
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

SCRIPTS = {tool: _MODEL + lines for tool, lines in TOOLS.items()}
"""By tool: build torchvision's ResNet-50, count it, print the tool's default output."""
