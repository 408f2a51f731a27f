"""Saved programs are models; pickles are not opened."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import resnetcli as rc
from tests.support.cli import run
from tests.support.pytorch import figures


def test_saved_programs_are_models_and_pickles_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    torch.jit.script(net).save("script.pt")  # type: ignore[no-untyped-call]
    torch.save(net, "whole.pt")
    torch.save(net.state_dict(), "state.pth")
    Path("bytes.pt").write_bytes(b"PK\x03\x04")
    assert figures(rc.profile("script.pt", input="3x8x8").counts)[:2] == (260, 8928)
    for file in ("whole.pt", "state.pth", "bytes.pt"):
        result = run(f"profile {file}")
        assert result.exit_code == 2
        assert "pickles can run code and are not opened" in result.stderr
    with zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("m/constants.pkl", bytes(2**28 + 2**20))
    assert "too large" in run("profile bomb.pt").stderr


@pytest.mark.slow
def test_an_exported_program_may_hold_torch_s_operations_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: batch},)), "net.pt2")
    assert figures(rc.profile("net.pt2", input="3x8x8").counts)[:2] == (224, 7776)
    changes = (("torch.ops.aten.relu.default", "torch.os.system"), ('"expr_str": "', '"expr_str": "open(chr(47)) or '))
    for text, evil in changes:
        with zipfile.ZipFile("net.pt2") as good, zipfile.ZipFile("evil.pt2", "w") as bad:
            for info in good.infolist():
                data = good.read(info)
                if info.filename.endswith("models/model.json"):
                    assert text in data.decode()
                    data = data.decode().replace(text, evil).encode()
                bad.writestr(info.filename, data)
        assert "is refused" in run("profile evil.pt2 --input 3x8x8").stderr


def test_a_model_on_meta_is_counted_and_not_timed(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef net(): return nn.Conv2d(3, 8, 3, device='meta')\n")
    result = run(f"profile {tmp_path}/net.py:net --input 3x8x8 --device cpu --time-budget 10ms")
    assert result.exit_code == 3
    assert "its weights are on the meta device" in result.stderr
    assert "224 parameters" in result.stdout
