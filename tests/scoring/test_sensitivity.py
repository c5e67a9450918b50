"""The committed figure of sensitivity to damage: still what the script gives, and growing everywhere."""

import subprocess
import sys

import pandas as pd
import pytest
from checkout import ROOT, environment


@pytest.mark.slow
def test_the_primary_distances_grow_with_every_damage(tmp_path):
    table, figure = tmp_path / "out.csv", tmp_path / "out.png"
    command = [sys.executable, "scripts/sensitivity.py", str(table), str(figure)]
    ended = subprocess.run(command, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    committed = pd.read_csv(ROOT / "docs" / "sensitivity.csv")
    pd.testing.assert_frame_equal(pd.read_csv(table), committed, rtol=1e-3)
    assert figure.stat().st_size > 10_000


def test_the_committed_table_grows_everywhere():
    """Undamaged, then four strengths: five values in a row for each of five damages of three data sets."""
    committed = pd.read_csv(ROOT / "docs" / "sensitivity.csv")
    for _, mine in committed.groupby(["dataset", "extractor"]):
        floor = float(mine.loc[mine["damage"] == "none", "fd"].iloc[0])
        kinds = mine[mine["damage"] != "none"].groupby("damage")["fd"]
        assert len(kinds) == 5
        for damage, values in kinds:
            assert len(values) == 4
            assert values.is_monotonic_increasing, damage
            assert values.iloc[0] > floor, damage
